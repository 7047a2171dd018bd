"""Runs the validators of requirements.txt over one FOCUS export. Called by `validate`, which says more."""

import csv
import os
import pathlib
import sys
import sysconfig
import tempfile

# Rules whose encoding in the validator's model (1.2.0.1) contradicts their own sentence, so that no row without an
# invoice, commitment or reservation passes them. Anything else that fails is ours, and so is one of these that passes:
# then a newer model is right, and the line here has to go.
WRONG_IN_THE_MODEL = {
    # "… when the charge is associated with either an issued invoice or a pre-generated provisional invoice": the
    # model's condition is empty.
    "InvoiceId-C-005-C",
    # "… when CommitmentDiscountId is not null": the model's condition is that it is null.
    "CommitmentDiscountStatus-C-004-C",
    # "… when CapacityReservationId is not null": the validator does not evaluate the model's list of two conditions.
    "CapacityReservationStatus-C-004-C",
}


# Stands in for a null ChargeClass: see `with_stand_in`.
STAND_IN = "NoCorrection"


def mend_for_older_python(site_packages):
    """Rewrites the one f-string that Python 3.11 cannot read, to the same meaning."""
    path = site_packages / "focus_validator/config_objects/focus_to_duckdb_converter.py"
    source = path.read_text(encoding="utf-8")
    before = """f"'{k.replace('\\"', '\\"\\"')}'" for k in ignore_keys"""
    after = """"'" + k.replace('"', '""') + "'" for k in ignore_keys"""
    if before in source:
        path.write_text(source.replace(before, after), encoding="utf-8")


def official_failures(export, site_packages):
    """The ids and sentences of the rules of FOCUS 1.2 that the export breaks, composite rules apart."""
    from focus_validator.validator import DEFAULT_VERSION_SETS_PATH, Validator

    # The validator looks for its list of currencies below the current folder.
    os.chdir(site_packages)
    with tempfile.TemporaryDirectory() as folder:
        results = Validator(
            data_filename=export,
            output_destination=os.path.join(folder, "report.xml"),
            output_type="unittest",
            rule_set_path=DEFAULT_VERSION_SETS_PATH,
            focus_dataset="CostAndUsage",
            rules_version="1.2.0.1",
            rules_block_remote_download=True,
            # Every rule, as if all that FOCUS knows were supported.
            applicability_criteria="ALL",
        ).validate()
    failures = {}
    for rule_id, result in results.by_rule_id.items():
        rule = results.rules[rule_id]
        if not result["ok"] and rule.function != "Composite":
            failures[rule_id] = rule.validation_criteria.must_satisfy
    checked = sum(1 for result in results.by_rule_id.values() if not (result.get("details") or {}).get("skipped"))
    return failures, checked


def with_stand_in(export, copy):
    """Copies the export with a text in place of each null ChargeClass.

    Half of the rules are for rows whose ChargeClass "is not Correction". The validator asks that in SQL, where null is
    neither equal nor unequal to anything, so that these rules look at no row at all. With a text they do.
    """
    with open(export, encoding="utf-8", newline="") as source, open(copy, "w", encoding="utf-8", newline="") as target:
        rows = csv.DictReader(source)
        writer = csv.DictWriter(target, rows.fieldnames)
        writer.writeheader()
        for row in rows:
            row["ChargeClass"] = row["ChargeClass"] or STAND_IN
            writer.writerow(row)


def split_problems(export):
    """What is wrong with the split charges of the export, and how many there are."""
    from focus_data_toolkit.validate.allocation import validate_split_allocation

    rows, origins = [], set()
    with open(export, encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if row["AllocatedMethodId"]:
                origins.add(row["x_ChargeId"])
                # The toolkit has names of its own for what ties the rows of a charge together, and sums BilledCost.
                row["x_SplitOriginId"] = row["x_ChargeId"]
                row["x_SplitOriginCost"] = row["x_OriginEffectiveCost"]
                row["BilledCost"] = row["EffectiveCost"]
            rows.append(row)
    problems = validate_split_allocation(rows, ratio_tolerance=0, cost_tolerance=0)
    return [str(problem) for problem in problems], len(origins), len(rows)


def main():
    export = sys.argv[1]
    site_packages = pathlib.Path(sysconfig.get_path("purelib"))
    mend_for_older_python(site_packages)
    failures, checked = official_failures(export, site_packages)
    with tempfile.TemporaryDirectory() as folder:
        copy = os.path.join(folder, "export.csv")
        with_stand_in(export, copy)
        of_copy, _ = official_failures(copy, site_packages)
    # Whether ChargeClass itself is right, the export has shown.
    failures |= {rule: text for rule, text in of_copy.items() if not rule.startswith("ChargeClass-")}
    problems, origins, rows = split_problems(export)

    unexpected = {rule: text for rule, text in failures.items() if rule not in WRONG_IN_THE_MODEL}
    for rule, text in sorted(unexpected.items()):
        print(f"{rule}: {text}")
    for rule in sorted(WRONG_IN_THE_MODEL - failures.keys()):
        print(f"{rule} passes now: take it out of WRONG_IN_THE_MODEL")
        problems.append(rule)
    for problem in problems:
        print(problem)
    print(f"{rows} rows, {origins} split charges, {checked} rules of FOCUS 1.2 checked")
    sys.exit(1 if unexpected or problems else 0)


if __name__ == "__main__":
    main()
