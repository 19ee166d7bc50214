-- Version of the worker that computed a chunk.
ALTER TABLE chunks ADD COLUMN version TEXT NOT NULL DEFAULT '';

-- Lanes' working time by sweep, kept beside the chunks so that a start doesn't read them all.
CREATE TABLE busy (
    experiment TEXT NOT NULL REFERENCES experiments (id),
    sweep INTEGER NOT NULL,
    us INTEGER NOT NULL,
    PRIMARY KEY (experiment, sweep)
) WITHOUT ROWID;
INSERT INTO busy SELECT experiment, sweep, SUM(busy_us) FROM chunks GROUP BY experiment, sweep;
