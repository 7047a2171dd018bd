//! What is well and what is not, by what AWS said; and what to do about it. Pure.

use bursar_model::{ProviderName, Region, Span, Timestamp};

use super::asked::{Identities, Identity, Refusal};
use crate::{
    Finding,
    aws::errors::{self, Meaning},
};

/// A clock that is kept in time by NTP is never off by that much.
const SKEW_MAX: Span = Span::from_secs(60);

/// From there on AWS refuses what is signed
/// (<https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-troubleshooting.html>).
const SKEW_REFUSED: Span = Span::from_secs(300);

/// What was found of one thing in one place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Judged {
    pub(super) check: String,
    /// The region, if it is of one.
    pub(super) place: Option<Region>,
    pub(super) detail: String,
    /// What to do, where it is not well.
    pub(super) fix: Option<String>,
}

impl Judged {
    pub(super) fn well(check: &str, place: Option<&Region>, detail: impl Into<String>) -> Self {
        Self { check: check.to_owned(), place: place.cloned(), detail: detail.into(), fix: None }
    }

    pub(super) fn ill(
        check: &str,
        place: Option<&Region>,
        detail: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self { check: check.to_owned(), place: place.cloned(), detail: detail.into(), fix: Some(fix.into()) }
    }
}

/// One line for what is alike in several regions, in the order in which it was found.
pub(super) fn merged(provider: &ProviderName, judged: &[Judged]) -> Vec<Finding> {
    let mut findings: Vec<(&Judged, Vec<&str>)> = Vec::new();
    for one in judged {
        let place = one.place.as_ref().map(Region::as_str);
        let alike =
            |other: &Judged| other.check == one.check && other.detail == one.detail && other.fix == one.fix;
        match findings.iter_mut().find(|(other, _)| alike(other)) {
            Some((_, places)) => places.extend(place.filter(|place| !places.contains(place))),
            None => findings.push((one, place.into_iter().collect())),
        }
    }
    let finding = |(Judged { check, detail, fix, .. }, places): (&Judged, Vec<&str>)| {
        let places = if places.is_empty() { String::new() } else { format!("{}: ", places.join(", ")) };
        Finding {
            name: format!("{provider} {check}"),
            ok: fix.is_none(),
            detail: format!("{places}{detail}"),
            fix: fix.clone(),
        }
    };
    findings.into_iter().map(finding).collect()
}

/// Credentials and clock: by who asks, as AWS says it. Answers with who it is, if it is known.
pub(super) fn credentials(asked: &Identities, now: Timestamp) -> (Vec<Judged>, Option<&Identity>) {
    let mut judged = Vec::new();
    let known = asked.by_region.values().find_map(|said| said.as_ref().ok());
    let skew = asked.time.map(|time| if time > now { time.since(now) } else { now.since(time) });
    let is_late = asked.time.is_some_and(|time| time > now);
    let is_refused_for_time = skew.is_some_and(|skew| skew > SKEW_REFUSED);
    let refused = asked.by_region.values().find_map(|said| said.as_ref().err());
    match (known, refused) {
        (Some(Identity { account, arn }), _) => {
            judged.push(Judged::well("credentials", None, format!("account {account} as {arn}")));
        }
        (None, Some(refusal)) if !is_refused_for_time => {
            judged.push(Judged::ill("credentials", None, refusal.shown(), credentials_fix(refusal)));
        }
        (None, _) => {}
    }
    if let Some(skew) = skew {
        let way = if is_late { "behind" } else { "ahead of" };
        judged.push(if skew > SKEW_MAX {
            let skew = Span::from_secs(skew.as_millis() / 1000);
            let detail =
                format!("this machine's clock is {skew} {way} that of AWS, which refuses five minutes");
            Judged::ill("clock", None, detail, "set it: `sudo timedatectl set-ntp true`")
        } else {
            Judged::well("clock", None, "as that of AWS")
        });
    }
    // A service or another may still answer, and what it says is of no use.
    (judged, known.filter(|_| !is_refused_for_time))
}

fn credentials_fix(refusal: &Refusal) -> String {
    let fix = match refusal.code.as_str() {
        _ if refusal.has_no_credentials => {
            "give the daemon some: `aws configure`, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in its environment, \
             or a role for its machine"
        }
        "ExpiredToken" | "ExpiredTokenException" | "RequestExpired" => {
            "get new ones: `aws sso login`, or `aws iam create-access-key` for keys that last"
        }
        "InvalidClientTokenId" | "UnrecognizedClientException" | "AuthFailure" => {
            "AWS does not know this key: `aws iam list-access-keys` shows those that there are, \
             `aws iam create-access-key` makes another"
        }
        "SignatureDoesNotMatch" | "IncompleteSignature" | "InvalidSignatureException" => {
            "the secret is not that of the key: enter both again by `aws configure`"
        }
        "" => "let this machine reach https://sts.us-east-1.amazonaws.com: look at its network and proxy",
        code => return see(code, "find out what `aws sts get-caller-identity` says"),
    };
    fix.to_owned()
}

/// Whether a region is enabled for the account.
pub(super) fn region(provider: &ProviderName, region: &Region, said: &Result<Identity, Refusal>) -> Judged {
    match said {
        Ok(_) => Judged::well("regions", Some(region), "enabled"),
        Err(refusal) if refusal.meaning == Some(Meaning::Auth) => Judged::ill(
            "regions",
            Some(region),
            "not enabled for this account",
            format!(
                "`aws account enable-region --region-name {region}`, which takes minutes, or take it out of \
                 providers.{provider}.regions"
            ),
        ),
        Err(refusal) => Judged::ill(
            "regions",
            Some(region),
            refusal.shown(),
            see(&refusal.code, &format!("let this machine reach https://ec2.{region}.amazonaws.com")),
        ),
    }
}

/// Something that was refused, whatever for.
pub(super) fn refused(action: &str, place: Option<&Region>, refusal: &Refusal, who: &Identity) -> Judged {
    if refusal.meaning == Some(Meaning::Auth) {
        let action = action_in(&refusal.message).unwrap_or(action);
        return Judged::ill(action, place, "not allowed", permission_fix(action, who));
    }
    let fix = match refusal.meaning {
        Some(Meaning::Throttled | Meaning::Unavailable) | None => "try again in some minutes",
        _ => "mend what it says",
    };
    Judged::ill(action, place, refusal.shown(), see(&refusal.code, fix))
}

/// All that is allowed, in one line a region.
pub(super) fn allowed(place: Option<&Region>, actions: &[&str]) -> Judged {
    Judged::well("permissions", place, format!("all {} that were tried", actions.len()))
}

impl Refusal {
    pub(super) fn shown(&self) -> String {
        // EC2 says why in pages of letters that mean nothing to a reader.
        let said = self.message.split(" Encoded authorization failure message").next().unwrap_or_default();
        if self.code.is_empty() { said.to_owned() } else { format!("{}: {said}", self.code) }
    }
}

/// What to do, with where AWS says more, if it does.
pub(super) fn see(code: &str, fix: &str) -> String {
    let source = errors::TABLE.iter().find(|row| row.code == code).map(|row| row.source);
    source.map_or_else(|| fix.to_owned(), |source| format!("{fix}; see {source}"))
}

/// The action that a refusal names: `… is not authorized to perform: iam:PassRole on resource: …`.
fn action_in(message: &str) -> Option<&str> {
    let (_, rest) = message.split_once("to perform: ")?;
    rest.split_whitespace().next().filter(|action| action.contains(':'))
}

fn permission_fix(action: &str, who: &Identity) -> String {
    let document = "--policy-name bursar --policy-document file://deploy/aws/iam-policy.json";
    let mut parts = who.arn.rsplit(':').next().unwrap_or_default().split('/');
    let command = match (parts.next(), parts.next()) {
        (Some("assumed-role"), Some(role)) => {
            format!("`aws iam put-role-policy --role-name {role} {document}`")
        }
        (Some("user"), _) => {
            let user = who.arn.rsplit('/').next().unwrap_or_default();
            format!("`aws iam put-user-policy --user-name {user} {document}`")
        }
        _ => "the policy deploy/aws/iam-policy.json".to_owned(),
    };
    let tagged =
        matches!(action, "ec2:TerminateInstances" | "ec2:DeleteVolume" | "ec2:CancelSpotInstanceRequests");
    let note = if tagged { ", with the name of this installation in its conditions" } else { "" };
    format!("allow {action} by {command}{note}")
}

/// Prices and types: their age, and what fails of them. Where a permission is missing, that is the finding.
pub(super) fn catalogue(
    offered: usize,
    oldest: Option<Timestamp>,
    troubles: &[String],
    is_refused: bool,
) -> Vec<Judged> {
    let age = oldest.map_or_else(|| "not complete yet".to_owned(), |at| format!("as of {at}"));
    if !troubles.is_empty() && !is_refused {
        let fix = "what was read before stands for spot prices six hours: try again in some minutes";
        return troubles.iter().map(|trouble| Judged::ill("catalogue", None, trouble, fix)).collect();
    }
    if offered == 0 && !is_refused {
        let fix =
            "see which are: `aws ec2 describe-instance-type-offerings`, and name some in `instance_types`";
        return vec![Judged::ill("catalogue", None, "nothing of `instance_types` is sold in `regions`", fix)];
    }
    vec![Judged::well("catalogue", None, format!("{offered} offerings, {age}"))]
}
