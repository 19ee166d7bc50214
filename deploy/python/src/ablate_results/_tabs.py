"""The tables as documented properties."""

from __future__ import annotations

from typing import Any


class Tables:
    """What :class:`ablate_results.Run` has a property for, each with the meaning and unit of its columns.

    A table is a frame of the run's kind, read when it is first used. Where the run has none,
    :class:`ablate_results.MissingTable` says which sweep gives it. All begin with `task`, `metric`, `method` and
    `unit` unless said otherwise, and name units in `name` ("L3.H5", "cross L0.H1", "L3.KV1") with `stream`, `layer`
    and `head`, from 0, null where a unit has none. Intervals are 95 %.
    """

    def table(self, name: str) -> Any:
        """Read a table."""
        raise NotImplementedError

    @property
    def heads(self) -> Any:
        """Every unit removed alone; a row per condition and unit.

        `baseline` and `value`: the metric with nothing and with the unit removed. `delta`: how much the loss rises,
        over the same examples, in the metric's unit; positive means that removing the unit hurts (for a metric where
        more is better the loss is its negative). `se`: its standard error, paired by example and clustered by
        document; for Pearson and Spearman the jackknife's over texts. `ci_low`, `ci_high`: its interval; for Pearson
        and Spearman resamples of texts scaled to that error, for F1, Matthews and BLEU percentiles of resampled
        documents. `p_value`: two-sided, Student's t with clusters − 1 degrees of freedom; for Pearson and Spearman with
        degrees of freedom estimated from the texts, and for F1, Matthews and BLEU normal on the resamples' error.
        `q_value`: Benjamini–Hochberg over the condition's units; resolved at 0.05. `n`, `clusters`: examples and
        documents (texts). `unit_heads`: heads of the unit.
        """
        return self.table("heads")

    @property
    def pairs(self) -> Any:
        """Two units removed together; a row per condition and pair.

        `a_…`, `b_…`: the earlier and the later unit. `delta_a`, `delta_b`, `delta_ab`: Δ of each and of both.
        `interaction`: Δ(ab) − Δ(a) − Δ(b), in the metric's unit, with `se`, `ci_low`, `ci_high`, `p_value` and
        `q_value` (over all pairs of the condition). `relation`: at q ≤ 0.05 "redundant" (above 0: either can do the
        job) or "overlapping" (below 0: in series, or saturated), else "unresolved". `normalised`: interaction /
        (|Δ(a)| + |Δ(b)|), only where resolved.
        """
        return self.table("pairs")

    @property
    def conditional(self) -> Any:
        """Two units removed together where others, the base, are already gone; a row per condition, base and pair.

        The columns of `pairs`, with the base gone in place of nothing. `base`: its units' names, joined by " + ".
        `delta_base`: Δ of the base alone. `delta_a`, `delta_b`, `delta_ab`: what each and both cost beyond that.
        `interaction`: Δ(Sab) − Δ(Sa) − Δ(Sb) + Δ(S), S being the base, with `se`, `ci_low`, `ci_high`, `p_value` and
        `q_value` (over all pairs of the condition and base), `relation` and `normalised` as there.
        """
        return self.table("conditional")

    @property
    def curve(self) -> Any:
        """Pruning curves; a row per condition, order and step, from nothing removed on.

        `order`: "greedy", "importance", "gradient", "rollout", "random-NN" (a plain shuffle) or "matched-NN" (a shuffle
        that removes as many units of each layer as greedy). `objective`: the task that the order is made for.
        `greedy_sweep`: which greedy sweep it belongs to. `half`: the half of the documents that it is reported on;
        null: all. `step`, and the unit that it removed. `removed`: heads gone. `fraction`: κ = heads gone / all heads.
        `value`: the metric P(κ). `retained`: (P(κ) − P_floor) / (P(0) − P_floor), where the floor
        has every head removed; not cut to [0, 1]; null where the floor isn't worse than P(0) beyond the interval of
        their difference. `ratio`: P(κ)/P(0), or P(0)/P(κ) where lower is better; of a log
        loss that of its perplexity. `value_low`, `value_high`,
        `retained_low`, `retained_high`: 95 % bands.
        """
        return self.table("curve")

    @property
    def orders(self) -> Any:
        """Each pruning curve in a few numbers; a row per condition and order.

        `order`: as in `curve`; "random" and "matched" are all random orders of that kind together: medians, with the
        2.5 % and 97.5 % quantiles in place of intervals. `r_079`: retained at κ = 0.79. `largest_99`, `largest_95`,
        `largest_90`: the largest κ up to which retained never falls below 0.99, 0.95 and 0.90. `area`: the area under
        retained over [0, fraction], divided by fraction. Each `…_low` and `…_high`: its interval. `cpr`, `cmd`: MIB's
        circuit performance ratio and circuit-model distance; null unless the sweep removes everything (fraction = 1).
        """
        return self.table("orders")

    @property
    def agreement(self) -> Any:
        """Whether two scores rank the units alike; a row per two scores and scope. It has no `metric`.

        `score_a`, `score_b`: "delta TASK METHOD", "gradient …", "attribution …" and so on. `scope`: "all" units, or
        "within_layer": the mean over layers of the correlation within each, because depth confounds. `spearman` (with
        `ci_low`, `ci_high`: bootstrap over units), `kendall` (τ-b; `kendall_low`, `kendall_high`), `jaccard` of the
        `top_k` highest (`jaccard_low`, `jaccard_high`).
        """
        return self.table("agreement")

    @property
    def scores(self) -> Any:
        """The stored score of every subset on every example: all else is computed from it. Large: see
        :meth:`ablate_results.Run.per_example`.

        `sweep_index`, `sweep`, `round`, `rank`: where in the plan. `scope`: "all" examples, or "select": those of the
        half that selects. `subset`: list of stream, layer and head. The other columns are lists, a value per example
        of the scope, null for other kinds of
        task: sufficient statistics, such as `nll` and `correct` summed over scored tokens, `logit_diff`, `cosine`.
        """
        return self.table("scores")

    @property
    def examples(self) -> Any:
        """Every example; a row per task and example. It has no `metric`; `method` and `unit` list all that it is used
        under.

        `index`: its number in the task. `cluster`: documents; examples of one are not independent. `half`: 0 selects,
        1 reports; null without halves. `tokens`: its tokens. `scored`: those that are scored, its weight in means.
        """
        return self.table("examples")

    @property
    def gradients(self) -> Any:
        """Scores by gradient, without removing anything; a row per condition and unit.

        `importance`: E|zᵀ ∂ℓ/∂z|, never negative. `importance_normalised`: divided by the ℓ2 norm over its layer.
        `attribution`: attribution patching E[(b − z)ᵀ ∂ℓ/∂z], the first-order estimate of delta, signed, with `se`,
        `ci_low`, `ci_high`. `loss`: what ℓ is. `n`, `clusters`: as in `heads`.
        """
        return self.table("gradients")

    @property
    def constants(self) -> Any:
        """What an optimal ablation puts in place of each head's z; a row per task and head.

        `name`: the head. `constant`: the fitted vector (head_dim numbers). `loss_mean`, `loss`: rise of the objective
        with the mean, and with the constant. `steps`, `step`: steps of the fit, and the one that was kept.
        """
        return self.table("constants")

    @property
    def attention(self) -> Any:
        """Scores of each head's attention on the unablated model; a row per task and head, `method` is "none".

        `confidence`: mean over queries of the largest weight, 0 to 1. `entropy`: mean entropy of a query's weights,
        in nats. `first_token`, `previous_token`, `duplicate_token`, `induction`: mean weight on the first token, the
        one before, an earlier token that is the same, and the one after such a token; null where no token repeats.
        `rollout`: attention rollout. `n`: examples.
        """
        return self.table("attention")

    @property
    def patterns(self) -> Any:
        """Whole attention patterns of the examples that the spec chose; a row per example, head, query and key.

        `example`: its index. `query`, `key`: positions, from 0. `query_token`, `key_token`: their texts. `attention`:
        weight of the key for the query; a query's weights sum to 1.
        """
        return self.table("patterns")

    @property
    def repair(self) -> Any:
        """Self-repair; a row per condition and unit.

        `direct`: Δ with everything downstream frozen to its unablated value. `total`: Δ. `repair`: direct − total, in
        the metric's unit; where it has the sign of `direct`, what comes after makes up for a part of that, or for
        more than all of it; else it amplifies it. `se`, `ci_low`, `ci_high`, `p_value`, `q_value`: of `repair`. `n`:
        examples.
        """
        return self.table("repair")

    @property
    def shift(self) -> Any:
        """How far the residual stream moves; a row per what is removed and place in the residual stream.

        `name`: the unit, or "all" for every head at once. `at_stream`, `at_layer`: the residual stream after so many
        layers (0: embeddings). `unablated`, `norm`: mean norm with nothing and with it removed. `ratio`: norm /
        unablated, and `largest` of one example. `reference`: mean norm on the reference set, `reference_ratio`:
        unablated / reference; null without one. `flagged`: either ratio at least 2 or at most ½, which makes deltas
        suspect.
        """
        return self.table("shift")

    @property
    def groups(self) -> Any:
        """Groups of redundant units with their joint Δ, which is measured; a row per condition and group.

        `group`: its number. `size`, `units`: how many, and their names. `delta`, `se`, `ci_low`, `ci_high`,
        `p_value`, `q_value`: of removing all of them. `sum_alone`: ΣΔ(i). `sum_pairs`: ΣΔ(i) + ΣI(ij). `interaction`:
        delta − sum_alone, with `interaction_se`, `interaction_low`, `interaction_high`, `interaction_p`,
        `interaction_q`. `n`: examples.
        """
        return self.table("groups")

    @property
    def triples(self) -> Any:
        """Three units removed together; a row per condition and triple that was measured.

        `a_name`, `b_name`, `c_name` and their places. `delta`: Δ of all three. `interaction`: third-order, Δ(ijk) −
        ΣΔ(pairs) + ΣΔ(singles), with `se`, `ci_low`, `ci_high`, `p_value`, `q_value`.
        """
        return self.table("triples")

    @property
    def polysemanticity(self) -> Any:
        """How many tasks a unit matters for; a row per method and unit. It has no `task` and no `metric`.

        `participation`: (Σ a)² / Σ a² of a = |Δ| / SE over tasks, from 1 (one task) to their number; null where every
        delta is 0. `resolved`: on how many tasks q ≤ 0.05; a unit that does nothing has noise in all tasks alike, and
        so a high participation too. `tasks`, `deltas`, `ses`: lists, a value per task. `strongest`: the task with the
        largest a. `strongest_share`: its share of Σ a.
        """
        return self.table("polysemanticity")

    @property
    def reliability(self) -> Any:
        """Whether a score would come out again from other examples; a row per score. It has no `metric`.

        `score`: "delta TASK METHOD" and so on, "rollout TASK" and so on of attention patterns. `split_half`:
        Spearman's correlation between the scores of two halves of the documents. `corrected`: by Spearman and Brown,
        for all of them; `ci_low`, `ci_high`: its interval. `n`: units.
        """
        return self.table("reliability")

    @property
    def selected(self) -> Any:
        """The largest effects of one half of the documents, measured on the other, as the largest of many estimates is
        the largest by luck too; up to ten units and ten pairs per condition.

        `effect_kind`: "delta" of a unit, or "interaction" of a pair. `rank`: its place, from 1, on the half that
        selects. `a_…`, `b_…`: the unit, or the two of a pair; `b_…` is null for a unit. `effect_select`: the effect on
        the half that selects. `effect`: on the half that reports, with `se`, `ci_low`, `ci_high` and `p_value`. `n`,
        `clusters`: examples and documents of the latter.
        """
        return self.table("selected")
