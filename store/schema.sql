CREATE TABLE leader (
  one INTEGER PRIMARY KEY CHECK (one = 1),
  epoch INTEGER NOT NULL
) STRICT;

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

CREATE TABLE accounts (
  id INTEGER PRIMARY KEY,
  project TEXT NOT NULL,
  user TEXT NOT NULL,
  sweep INTEGER
) STRICT;

CREATE UNIQUE INDEX accounts_whole ON accounts (project, user, sweep);

CREATE INDEX accounts_sweep ON accounts (sweep) WHERE sweep IS NOT NULL;

CREATE TABLE places (
  id INTEGER PRIMARY KEY,
  provider TEXT NOT NULL,
  region TEXT NOT NULL,
  instance_type TEXT NOT NULL,
  capacity_type TEXT NOT NULL
) STRICT;

CREATE UNIQUE INDEX places_whole ON places (provider, region, instance_type, capacity_type);

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
, checkpoint_took INTEGER) STRICT;

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

CREATE TABLE notifications (
  id INTEGER PRIMARY KEY,
  live INTEGER NOT NULL,
  body TEXT NOT NULL
) STRICT;

CREATE INDEX notifications_live ON notifications (id) WHERE live;

CREATE TABLE reported (
  report TEXT PRIMARY KEY,
  until INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

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

CREATE VIEW costs AS
SELECT charges.seq, charges.instance, charges.since AS at, charges.since / 86400000 AS day, account, experiment, place, category,
       effective, contracted, list, on_demand, millis
FROM charges
JOIN charge_lines ON charge_lines.charge = charges.seq
JOIN instances ON instances.id = charges.instance;
