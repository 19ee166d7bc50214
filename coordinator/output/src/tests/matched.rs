//! Random orders that are matched per layer to greedy.

use super::*;
use crate::facts::families;
use ablate_common::units::UnitKind;

/// An experiment of [`experiment`] with matched orders besides, at the points of the plain ones.
pub(crate) fn with_matched(mut r: Results) -> Results {
    let SweepKind::Random { orders, seed, points } = r.plan.sweeps[6].kind.clone() else { panic!() };
    let kind = SweepKind::Matched { greedy: 3, orders, seed, points };
    r.plan.sweeps.push(PlannedSweep { kind, ..r.plan.sweeps[6].clone() });
    let list = r.rounds[&(4, 0)].list.clone();
    r.rounds.insert((7, 0), scores(&r.plan, &r.prepared, 7, 0, &list, true));
    r
}

#[test]
fn matched_orders_stand_beside_the_plain_ones_wherever_those_are() {
    let plain = experiment(2, 4, 30, true);
    let r = with_matched(plain.clone());
    let a = analyse(&r);
    for (g, before) in a.groups.iter().zip(&analyse(&plain).groups) {
        assert_eq!((g.curves.len(), before.curves.len()), (42, 22));
        let family = &families(g)[0];
        assert_eq!((family.named.len(), family.random.len(), family.matched.len()), (2, 20, 20));
        let (greedy, random) = (family.named[0], family.random[0]);
        assert!(family.matched.iter().all(|c| c.greedy == Some(3) && c.half == Some(1) && c.last == 7));
        let removed = |c: &Curve| c.points.iter().map(|p| p.removed).collect::<Vec<_>>();
        assert!(family.matched.iter().all(|c| removed(c) == removed(random)));
        assert_eq!((family.matched[0].order.as_str(), greedy.order.as_str()), ("matched-00", "greedy"));
        // Both heads that stand in for each other and the one that matters are drawn for others now and then.
        let at = |c: &&Curve| c.at(0.79).unwrap().value;
        assert!(family.matched.iter().any(|c| at(c) != at(&greedy)));
        let rows = orders(g);
        assert_eq!((rows.len(), rows[22].order.as_str(), rows[43].order.as_str()), (44, "random", "matched"));
        assert_eq!((rows[43].orders, rows[43].half), (20, Some(1)));
        assert!(rows[43].r_079_low <= rows[43].r_079 && rows[43].r_079 <= rows[43].r_079_high);
    }
    let [with, without] =
        [&r, &plain].map(|r| facts::summary(r, &analyse(r))["tasks"][0]["curves"][0].clone());
    assert_eq!((&with["matched"]["orders"], with["random"] == without["random"]), (&20.into(), true));
    assert!(without.get("matched").is_none() && with["matched"]["retained_079_median"].is_number());
    let [with, without] = [&r, &plain].map(headline);
    assert!(with.contains("(random orders matched per layer: median "), "{with}");
    assert!(without.contains("(random orders: median ") && !without.contains("matched"), "{without}");
    let dir = tempfile::tempdir().unwrap();
    let page = |r: &Results| {
        report(r, &dir.path().join("report.html")).unwrap();
        std::fs::read_to_string(dir.path().join("report.html")).unwrap()
    };
    let [with, without] = [page(&r), page(&plain)];
    for words in [
        "20 random orders matched per layer retain",
        "Ochre: 20 random orders that remove as many heads of each layer as greedy does, their median and their 5th to 95th percentile.",
    ] {
        assert!(with.contains(words) && !without.contains(words), "{words}");
    }
}

#[test]
fn captions_say_what_is_drawn_and_no_more() {
    let r = with_matched(experiment(2, 4, 30, true));
    let caption = |r: &Results| {
        let a = analyse(r);
        let curve =
            crate::figure::figures(r, &a).unwrap().into_iter().find(|f| f.name.starts_with("curve")).unwrap();
        (curve.finding, curve.how)
    };
    let (_, how) = caption(&r);
    let named = how.find("Bands of orders with a name are 95 % intervals.").unwrap();
    assert!(named < how.find("Grey: 20").unwrap() && how.find("Grey: 20") < how.find("Ochre: 20"), "{how}");
    // Only matched orders, of units that aren't heads.
    let mut only = r;
    for path in [4, 5, 6] {
        only.rounds.remove(&(path, 0));
    }
    only.plan.ablations.iter_mut().for_each(|a| a.unit = UnitKind::KvGroup);
    let (finding, how) = caption(&only);
    assert_eq!(finding, "Removed in random orders matched per layer.");
    assert!(!how.contains("Bands of orders") && !how.contains("Grey"), "{how}");
    assert!(how.contains("as many KV groups of each layer as greedy does"), "{how}");
}

#[test]
fn at_each_point_as_many_heads_of_each_layer_are_gone_as_greedy_removed() {
    let r = with_matched(experiment(3, 4, 6, true));
    let greedy = &r.rounds[&(4, 0)].list;
    let space = r.plan.space(7, greedy);
    let SweepKind::Matched { orders, points, .. } = &r.plan.sweeps[7].kind else { panic!() };
    assert_eq!((space.len(), r.plan.round_subsets(7, 0)), (u64::from(orders * 10), u64::from(orders * 10)));
    for rank in 0..space.len() {
        let heads = r.plan.removed(7, &space, rank).unwrap();
        let gone = points[rank as usize % points.len()] as usize;
        let prefix = r.plan.units(7).union(&greedy[..gone]);
        let of = |heads: &[HeadIx]| [0, 1, 2].map(|l| heads.iter().filter(|h| h.0 / 4 == l).count());
        assert_eq!(of(&heads), of(&prefix));
    }
}

#[test]
fn curves_beside_which_chance_is_not_known_are_warned_of() {
    let mut r = with_matched(experiment(2, 4, 8, true));
    let said = |r: &Results| {
        let a = analyse(r);
        facts::warnings(r, &a.groups[0]).into_iter().find(|w| w.contains("plain random order"))
    };
    assert_eq!(said(&r), None);
    let SweepKind::Random { orders, .. } = &mut r.plan.sweeps[6].kind else { panic!() };
    *orders = 19;
    let fewer = scores(&r.plan, &r.prepared, 6, 0, &[], true);
    r.rounds.insert((6, 0), fewer);
    let warned = said(&r).unwrap();
    assert!(warned.starts_with("19 plain random orders stand beside the pruning curves"), "{warned}");
    // Matched ones are no stand-in: they know how greedy spreads over layers.
    r.rounds.remove(&(6, 0));
    let warned = said(&r).unwrap();
    assert!(warned.starts_with("No plain random order stands"), "{warned}");
    for path in [4, 5, 7] {
        r.rounds.remove(&(path, 0));
    }
    assert_eq!(said(&r), None, "there is no curve");
}

#[test]
fn matched_orders_whose_scores_are_missing_are_left_out() {
    let mut r = with_matched(experiment(2, 4, 8, true));
    r.rounds.remove(&(7, 0));
    let a = analyse(&r);
    assert!(a.groups.iter().all(|g| g.curves.len() == 22 && families(g)[0].matched.is_empty()));
    assert!(facts::partial(&r) && facts::warnings(&r, &a.groups[0]).iter().any(|w| w.contains("missing")));
}
