"""The tables that a folder of results may hold: which sweep gives each, and the types of their columns.

Parquet carries its types. CSV and JSON don't, so they are restored from here.
"""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa


@dataclass(frozen=True)
class Table:
    """A table of the output folder."""

    #: Name of the file, without its ending.
    name: str
    #: What gives it, as the end of "it comes from …".
    source: str
    #: Kinds of sweep of which one gives it; empty where every run has it.
    kinds: tuple[str, ...]


_ALL = (
    Table("heads", 'a sweep of kind "single"', ("single",)),
    Table("pairs", 'a sweep of kind "pairs" without a base', ("pairs",)),
    Table("conditional", 'a sweep of kind "pairs" with a base', ("conditional",)),
    Table("curve", 'a sweep of kind "greedy"', ("greedy",)),
    Table("orders", 'a sweep of kind "greedy"', ("greedy",)),
    Table(
        "agreement",
        'two scores of the same units: two tasks or methods with a sweep of kind "single", or one beside a sweep of '
        'kind "gradient" or "attention"',
        (),
    ),
    Table("gradients", 'a sweep of kind "gradient"', ("gradient",)),
    Table("constants", 'an ablation with method = "optimal"', ()),
    Table("attention", 'a sweep of kind "attention"', ("attention",)),
    Table(
        "patterns",
        'a sweep of kind "attention" that keeps the patterns of some examples (patterns = [0])',
        ("attention",),
    ),
    Table("repair", 'a sweep of kind "repair"', ("repair",)),
    Table("shift", 'a sweep of kind "shift"', ("shift",)),
    Table(
        "groups",
        'a sweep of kind "pairs" without a base that finds redundant heads (groups = true)',
        ("pairs",),
    ),
    Table("triples", 'a sweep of kind "pairs" without a base, with third_order above 0', ("pairs",)),
    Table("polysemanticity", 'a sweep of kind "single" over two tasks or more', ("single",)),
    Table(
        "reliability",
        'a sweep of kind "single", "gradient" or "attention"',
        ("single", "gradient", "attention"),
    ),
    Table("selected", 'a sweep of kind "single", or "pairs" without a base', ("single", "pairs")),
    Table("scores", "every run", ()),
    Table("examples", "every run", ()),
)

#: Tables by name, in the order of their names in documents.
TABLES = {t.name: t for t in _ALL}

_HEAD = pa.struct([("stream", pa.string()), ("layer", pa.uint32()), ("head", pa.uint32())])

_TEXT = """
task metric method unit stream name relation order objective scope score score_a score_b sweep loss_name a_stream
a_name b_stream b_name c_stream c_name query_token key_token strongest at_stream effect_kind base
""".split()
_WHOLE = """
layer head a_layer a_head b_layer b_head c_layer c_head n clusters unit_heads step steps removed half greedy_sweep
sweep_index round index cluster tokens scored example query key at_layer group size top_k resolved
""".split()
_FLOATS = """
baseline value delta se ci_low ci_high p_value q_value delta_a delta_b delta_ab interaction normalised fraction
retained ratio value_low value_high retained_low retained_high spearman kendall kendall_low kendall_high jaccard
jaccard_low jaccard_high importance importance_normalised attribution confidence entropy first_token previous_token
duplicate_token induction rollout direct total repair unablated norm largest reference reference_ratio sum_alone
sum_pairs interaction_se interaction_low interaction_high interaction_p interaction_q participation split_half
corrected r_079 r_079_low r_079_high largest_99 largest_95 largest_90 area area_low area_high cpr cmd loss_mean
confidence_se entropy_se first_token_se previous_token_se duplicate_token_se induction_se rollout_se
strongest_share effect effect_select delta_base
""".split()
_LISTS = """
deltas ses constant cosine nll correct logit_diff prob_diff prediction label kl
""".split()

_TYPES: dict[str, pa.DataType] = {
    **dict.fromkeys(_TEXT, pa.string()),
    **dict.fromkeys(_WHOLE, pa.uint32()),
    **dict.fromkeys(_FLOATS, pa.float64()),
    **dict.fromkeys(_LISTS, pa.list_(pa.float64())),
    "flagged": pa.bool_(),
    "rank": pa.uint64(),
    "subset": pa.list_(_HEAD),
    "units": pa.list_(pa.string()),
    "tasks": pa.list_(pa.string()),
}

#: Columns that mean something else in one table than in the others.
_OWN: dict[str, dict[str, pa.DataType]] = {
    "gradients": {"loss": pa.string()},
    "constants": {"loss": pa.float64()},
    "patterns": {"attention": pa.float64()},
    "selected": {"rank": pa.uint32()},
}

#: Columns that may hold nothing but nulls, which JSON of older releases leaves out.
NULLABLE: dict[str, tuple[str, ...]] = {
    "heads": ("stream", "layer", "head"),
    "gradients": ("stream", "layer", "head", "importance_normalised"),
    "pairs": ("a_stream", "a_layer", "a_head", "b_stream", "b_layer", "b_head", "normalised"),
    "conditional": ("a_stream", "a_layer", "a_head", "b_stream", "b_layer", "b_head", "normalised"),
    "curve": ("greedy_sweep", "half", "stream", "layer", "head", "retained", "ratio", "name"),
    "orders": ("half", "r_079", "largest_99", "largest_95", "largest_90", "area", "cpr", "cmd"),
    "examples": ("half",),
    "attention": ("duplicate_token", "induction"),
    "shift": ("stream", "layer", "head", "reference", "reference_ratio"),
    "polysemanticity": ("stream", "layer", "head", "participation", "strongest_share"),
    "selected": ("a_stream", "a_layer", "a_head", "b_stream", "b_layer", "b_head", "b_name"),
}

#: Columns of `scores` that describe a row; all others are lists of scores, one value per example.
SCORE_KEYS = (
    "task",
    "metric",
    "method",
    "unit",
    "sweep_index",
    "sweep",
    "round",
    "rank",
    "scope",
    "subset",
)


def column_type(table: str, column: str) -> pa.DataType | None:
    """Give the type of a column; None where it isn't known here."""
    own = _OWN.get(table, {}).get(column)
    if own is not None:
        return own
    if table == "scores" and column not in SCORE_KEYS:
        return pa.list_(pa.float64())
    return _TYPES.get(column)
