-- The epoch, raised by every takeover. Every write of a coordinator reads it under a shared lock in its own
-- transaction, so a takeover waits for the writes under way, and no write of an older epoch begins after it.
CREATE TABLE leader (one BOOLEAN PRIMARY KEY DEFAULT TRUE CHECK (one), epoch BIGINT NOT NULL);
INSERT INTO leader (epoch) VALUES (0);

-- Who leads and until when, on this database's clock. Not in the epoch's row: a renewal must not wait for writes.
CREATE TABLE lead (
    one BOOLEAN PRIMARY KEY DEFAULT TRUE CHECK (one),
    epoch BIGINT NOT NULL,
    holder TEXT NOT NULL,
    url TEXT NOT NULL,
    expires TIMESTAMPTZ NOT NULL
);
INSERT INTO lead (epoch, holder, url, expires) VALUES (0, '', '', '-infinity');

CREATE TABLE blobs (hash TEXT PRIMARY KEY, data BYTEA NOT NULL);

CREATE TABLE experiments (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    plan TEXT NOT NULL,
    spec TEXT NOT NULL,
    model_path TEXT NOT NULL,
    output TEXT NOT NULL,
    state TEXT NOT NULL,
    error TEXT NOT NULL DEFAULT '',
    computed BIGINT NOT NULL DEFAULT 0,
    duplicate BIGINT NOT NULL DEFAULT 0
);

-- Rounds that were opened, with their input and, once all chunks are in, what follows from them.
CREATE TABLE rounds (
    experiment TEXT NOT NULL REFERENCES experiments (id),
    sweep BIGINT NOT NULL,
    round BIGINT NOT NULL,
    list TEXT NOT NULL,
    decision TEXT,
    PRIMARY KEY (experiment, sweep, round)
);

-- Invariant "accepted once": the key is unique. No foreign key: what inserts looks for the round itself.
CREATE TABLE chunks (
    experiment TEXT NOT NULL,
    sweep BIGINT NOT NULL,
    round BIGINT NOT NULL,
    chunk BIGINT NOT NULL,
    scores BYTEA NOT NULL,
    device_class TEXT NOT NULL,
    worker TEXT NOT NULL,
    version TEXT NOT NULL,
    busy_us BIGINT NOT NULL,
    PRIMARY KEY (experiment, sweep, round, chunk)
);
-- Scores are compressed already.
ALTER TABLE chunks ALTER COLUMN scores SET STORAGE EXTERNAL;

CREATE TABLE quarantine (
    experiment TEXT NOT NULL REFERENCES experiments (id),
    sweep BIGINT NOT NULL,
    round BIGINT NOT NULL,
    chunk BIGINT NOT NULL,
    error TEXT NOT NULL,
    PRIMARY KEY (experiment, sweep, round, chunk)
);

-- Lanes' working time by sweep, kept beside the chunks so that a start doesn't read them all.
CREATE TABLE busy (
    experiment TEXT NOT NULL REFERENCES experiments (id),
    sweep BIGINT NOT NULL,
    us BIGINT NOT NULL,
    PRIMARY KEY (experiment, sweep)
);

CREATE TABLE timings (
    experiment TEXT NOT NULL REFERENCES experiments (id),
    step TEXT NOT NULL,
    seconds DOUBLE PRECISION NOT NULL,
    PRIMARY KEY (experiment, step)
);
