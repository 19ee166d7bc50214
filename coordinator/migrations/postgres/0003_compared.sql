-- Results that two workers computed on one device class: how many were compared, and which differ.
ALTER TABLE experiments ADD COLUMN compared BIGINT NOT NULL DEFAULT 0;
CREATE TABLE differing (
    experiment TEXT NOT NULL REFERENCES experiments (id),
    sweep BIGINT NOT NULL,
    round BIGINT NOT NULL,
    chunk BIGINT NOT NULL,
    worker TEXT NOT NULL,
    stored TEXT NOT NULL,
    PRIMARY KEY (experiment, sweep, round, chunk, worker)
);
