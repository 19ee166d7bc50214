//! Turns a spec into a recorded plan: tokenizers, datasets, generated tasks.
