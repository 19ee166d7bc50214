-- The coordinator's leadership: one row. Every write checks it in its own transaction.
CREATE TABLE leader (one INTEGER PRIMARY KEY CHECK (one = 1), epoch INTEGER NOT NULL);
INSERT INTO leader VALUES (1, 0);

CREATE TABLE blobs (hash TEXT PRIMARY KEY, data BLOB NOT NULL) WITHOUT ROWID;

CREATE TABLE experiments (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    plan TEXT NOT NULL,
    spec TEXT NOT NULL,
    model_path TEXT NOT NULL,
    output TEXT NOT NULL,
    state TEXT NOT NULL,
    error TEXT NOT NULL DEFAULT '',
    computed INTEGER NOT NULL DEFAULT 0,
    duplicate INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;

-- Invariant "accepted once": the key is unique.
CREATE TABLE chunks (
    experiment TEXT NOT NULL REFERENCES experiments (id),
    sweep INTEGER NOT NULL,
    round INTEGER NOT NULL,
    chunk INTEGER NOT NULL,
    scores BLOB NOT NULL,
    device_class TEXT NOT NULL,
    worker TEXT NOT NULL,
    busy_us INTEGER NOT NULL
);
CREATE UNIQUE INDEX chunks_key ON chunks (experiment, sweep, round, chunk);

-- Rounds that were opened, with their input and, once all chunks are in, what follows from them.
CREATE TABLE rounds (
    experiment TEXT NOT NULL REFERENCES experiments (id),
    sweep INTEGER NOT NULL,
    round INTEGER NOT NULL,
    list TEXT NOT NULL,
    decision TEXT,
    PRIMARY KEY (experiment, sweep, round)
) WITHOUT ROWID;

CREATE TABLE quarantine (
    experiment TEXT NOT NULL REFERENCES experiments (id),
    sweep INTEGER NOT NULL,
    round INTEGER NOT NULL,
    chunk INTEGER NOT NULL,
    error TEXT NOT NULL,
    PRIMARY KEY (experiment, sweep, round, chunk)
) WITHOUT ROWID;

CREATE TABLE timings (
    experiment TEXT NOT NULL REFERENCES experiments (id),
    step TEXT NOT NULL,
    seconds REAL NOT NULL,
    PRIMARY KEY (experiment, step)
) WITHOUT ROWID;
