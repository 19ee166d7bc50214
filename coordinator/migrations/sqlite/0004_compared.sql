-- Results that two workers computed on one device class: how many were compared, and which differ.
ALTER TABLE experiments ADD COLUMN compared INTEGER NOT NULL DEFAULT 0;
CREATE TABLE differing (
    experiment TEXT NOT NULL REFERENCES experiments (id),
    sweep INTEGER NOT NULL,
    round INTEGER NOT NULL,
    chunk INTEGER NOT NULL,
    worker TEXT NOT NULL,
    stored TEXT NOT NULL,
    PRIMARY KEY (experiment, sweep, round, chunk, worker)
) WITHOUT ROWID;
