-- How long storing an experiment's newest checkpoint took, in milliseconds; none where it is not known.
ALTER TABLE experiments ADD COLUMN checkpoint_took INTEGER;
