-- Moments are milliseconds since 1970, money is nano-dollars, ids are the numbers behind their text forms.
-- `live` rows are what the daemon loads at its start; partial indexes find them among any number of rows that are over.

-- The newest opening for writing: a commit of an older one is refused.
CREATE TABLE leader (
  one INTEGER PRIMARY KEY CHECK (one = 1),
  epoch INTEGER NOT NULL
) STRICT;
INSERT INTO leader (one, epoch) VALUES (1, 0);

-- Every event ever, in order.
CREATE TABLE journal (
  seq INTEGER PRIMARY KEY,
  at INTEGER NOT NULL,
  event TEXT NOT NULL
) STRICT;

CREATE TABLE submissions (
  key TEXT PRIMARY KEY,
  digest BLOB NOT NULL,
  sweep INTEGER,
  experiments BLOB
) STRICT, WITHOUT ROWID;

CREATE TABLE specs (
  id BLOB PRIMARY KEY,
  body TEXT NOT NULL
) STRICT;

-- Who pays, once for all rows that say the same.
CREATE TABLE accounts (
  id INTEGER PRIMARY KEY,
  project TEXT NOT NULL,
  user TEXT NOT NULL,
  sweep INTEGER
) STRICT;
CREATE UNIQUE INDEX accounts_whole ON accounts (project, user, sweep);
CREATE INDEX accounts_sweep ON accounts (sweep) WHERE sweep IS NOT NULL;

-- Where money went, once for all rows that say the same.
CREATE TABLE places (
  id INTEGER PRIMARY KEY,
  provider TEXT NOT NULL,
  region TEXT NOT NULL,
  instance_type TEXT NOT NULL,
  capacity_type TEXT NOT NULL
) STRICT;
CREATE UNIQUE INDEX places_whole ON places (provider, region, instance_type, capacity_type);

-- `detail` is the state with its data, for all states but queued.
CREATE TABLE experiments (
  id INTEGER PRIMARY KEY,
  live INTEGER NOT NULL,
  state TEXT NOT NULL,
  name TEXT NOT NULL,
  account INTEGER NOT NULL,
  spec BLOB NOT NULL,
  params TEXT,
  queued_at INTEGER NOT NULL,
  detail TEXT,
  attempts INTEGER NOT NULL,
  failures INTEGER NOT NULL,
  losses INTEGER NOT NULL,
  not_before INTEGER,
  checkpoint_at INTEGER,
  metrics TEXT,
  cancelled INTEGER NOT NULL,
  expected TEXT
) STRICT;
CREATE INDEX experiments_live ON experiments (state) WHERE live;
CREATE INDEX experiments_account ON experiments (account);

CREATE TABLE sweeps (
  id INTEGER PRIMARY KEY,
  live INTEGER NOT NULL,
  name TEXT NOT NULL,
  project TEXT NOT NULL,
  body TEXT NOT NULL
) STRICT;
CREATE INDEX sweeps_live ON sweeps (id) WHERE live;

CREATE TABLE attempts (
  id INTEGER PRIMARY KEY,
  live INTEGER NOT NULL,
  experiment INTEGER NOT NULL,
  body TEXT NOT NULL
) STRICT;
CREATE INDEX attempts_live ON attempts (id) WHERE live;
CREATE INDEX attempts_experiment ON attempts (experiment);

CREATE TABLE instances (
  id INTEGER PRIMARY KEY,
  live INTEGER NOT NULL,
  place INTEGER NOT NULL,
  body TEXT NOT NULL
) STRICT;
CREATE INDEX instances_live ON instances (id) WHERE live;

-- `key` is 0 for the installation (kind 0), a name for a project (1) or a user (2), an id for a sweep (3) or an experiment
-- (4). `rest` is what else there is of it, in JSON; most budgets of experiments have nothing else.
CREATE TABLE budgets (
  kind INTEGER NOT NULL,
  key ANY NOT NULL,
  live INTEGER NOT NULL,
  spent INTEGER NOT NULL,
  held INTEGER NOT NULL,
  rest TEXT,
  PRIMARY KEY (kind, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX budgets_live ON budgets (kind, key) WHERE live;

CREATE TABLE refused (
  scope TEXT PRIMARY KEY,
  failures INTEGER NOT NULL,
  until INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- What webhooks are told.
CREATE TABLE notifications (
  id INTEGER PRIMARY KEY,
  live INTEGER NOT NULL,
  body TEXT NOT NULL
) STRICT;
CREATE INDEX notifications_live ON notifications (id) WHERE live;

-- Up to when each scheduled report has covered all time.
CREATE TABLE reported (
  report TEXT PRIMARY KEY,
  until INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- `seq` is that of the event in the journal. Rows are added, never changed. Prices and costs are on four bases: what is
-- charged, what the cloud bills, what it lists, and what the same had cost on demand.
CREATE TABLE charges (
  seq INTEGER PRIMARY KEY,
  instance INTEGER NOT NULL,
  since INTEGER NOT NULL,
  until INTEGER NOT NULL,
  correction INTEGER NOT NULL,
  effective_price INTEGER NOT NULL,
  contracted_price INTEGER NOT NULL,
  list_price INTEGER NOT NULL,
  on_demand_price INTEGER NOT NULL
) STRICT;
CREATE INDEX charges_instance ON charges (instance);
CREATE INDEX charges_since ON charges (since);

-- `millis` is the payer's part of the instance's time, so that times add up as money does.
CREATE TABLE charge_lines (
  charge INTEGER NOT NULL,
  line INTEGER NOT NULL,
  experiment INTEGER NOT NULL,
  account INTEGER NOT NULL,
  category INTEGER NOT NULL,
  effective INTEGER NOT NULL,
  contracted INTEGER NOT NULL,
  list INTEGER NOT NULL,
  on_demand INTEGER NOT NULL,
  millis INTEGER NOT NULL,
  PRIMARY KEY (charge, line)
) STRICT, WITHOUT ROWID;
CREATE INDEX charge_lines_experiment ON charge_lines (experiment);

-- Kept with the charges, in the same transaction: what reports add up. A charge counts on the day of its start (UTC).
CREATE TABLE sums (
  day INTEGER NOT NULL,
  account INTEGER NOT NULL,
  experiment INTEGER NOT NULL,
  place INTEGER NOT NULL,
  category INTEGER NOT NULL,
  effective INTEGER NOT NULL,
  contracted INTEGER NOT NULL,
  list INTEGER NOT NULL,
  on_demand INTEGER NOT NULL,
  millis INTEGER NOT NULL,
  PRIMARY KEY (day, account, experiment, place, category)
) STRICT, WITHOUT ROWID;

-- What the sums are sums of.
CREATE VIEW costs AS
SELECT charges.seq, charges.instance, charges.since AS at, charges.since / 86400000 AS day, account, experiment, place, category,
       effective, contracted, list, on_demand, millis
FROM charges
JOIN charge_lines ON charge_lines.charge = charges.seq
JOIN instances ON instances.id = charges.instance;
