"""The dashboard as HTML: one card per question a lead has, each with a plot and, where names matter, a table."""

import json
from collections.abc import Sequence

from annotators.agreement import FieldAgreement, PairAgreement
from annotators.ledger.batch import refusal
from annotators.ledger.statistics import PersonFigures, SpeakerFigures, Statistics
from annotators.ledger.tallies import Stratum
from apps.review.dashboard_plots import bar_plot, hour_plot, interval_plot, level_plot
from apps.review.markup import say

_MOST_PAIRS, _MOST_ROWS = 12, 25
_NOTHING = '<p class="hint">Nothing yet.</p>'


def dashboard(found: Statistics, *, bound: float, may_accept: bool) -> str:
    """Everything, or the own figures of one reviewer."""
    cards = [_progress(found), _waiting(found), _pace(found), _people(found.people)]
    cards += [_edit_rates(found), _speakers(found.speakers)]
    if found.reviewer is None:
        cards += [_agreement(found), _pairs(found.pairs), _strata(found.strata, bound, may_accept=may_accept)]
    return f'<div class="dashboard">{"".join(cards)}</div>'


def _card(title: str, hint: str, body: str, *, wide: bool = False) -> str:
    size = ' class="wide"' if wide else ""
    return f'<section{size}><h2>{title}</h2><p class="hint">{hint}</p>{body or _NOTHING}</section>'


def _progress(found: Statistics) -> str:
    share = found.num_done / found.num_items if found.num_items else 0.0
    hours = "not known yet" if found.hours_left is None else f"{found.hours_left:,.1f} h"
    facts = (
        (f"{found.num_done:,}", f"of {found.num_items:,} items done"),
        (f"{found.num_decisions_left:,}", "decisions left"),
        (hours, "of people's time left"),
    )
    body = "".join(f"<li><b>{value}</b><span>{words}</span></li>" for value, words in facts)
    meter = f'<div class="meter" role="img" aria-label="{share:.0%} done"><i style="width:{share:.2%}"></i></div>'
    return _card("Progress", "At the pace so far.", f'<ul class="facts">{body}</ul>{meter}')


def _waiting(found: Statistics) -> str:
    most_first = sorted(found.waiting.items(), key=lambda row: (-row[1], row[0]))
    rows = [(reason, float(count), f"{count:,}") for reason, count in most_first]
    return _card("What waits, and why", "Items, by what puts them where they stand.", bar_plot("what waits", rows))


def _pace(found: Statistics) -> str:
    hint = "Looked at one by one, in the last two days with any (UTC)."
    return _card("Decisions per hour", hint, hour_plot("decisions per hour", found.hourly))


def _people(people: Sequence[PersonFigures]) -> str:
    rows = ""
    for person in people[:_MOST_ROWS]:
        time = "" if person.median_s is None else f"{person.median_s:.1f} s"
        rows += (
            f'<tr><th scope="row">{say(person.reviewer)}</th><td>{person.num_decisions:,}</td><td>{time}</td>'
            f"<td>{person.num_skipped:,}</td><td>{person.num_undone:,}</td><td>{person.num_batch:,}</td></tr>"
        )
    heads = "".join(f'<th scope="col">{word}</th>' for word in ("", "decided", "median", "skipped", "undone", "batch"))
    table = f"<table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>{_more(len(people), _MOST_ROWS)}"
    gold = [(person.reviewer, person.gold) for person in people if person.gold.of]
    plot = f"<h3>Gold items decided as the truth says</h3>{interval_plot('gold accuracy', gold)}" if gold else ""
    return _card("People", "Median: how long they look before they decide.", table + plot if people else "")


def _more(num: int, most: int) -> str:
    return f'<p class="hint">{num - most:,} more: dataengine review stats --json</p>' if num > most else ""


def _edit_rates(found: Statistics) -> str:
    rows = [(rate.field, rate.changed) for rate in found.edit_rates[:_MOST_ROWS]]
    hint = "How often people changed it, of what they accepted or edited."
    return _card("Edits, by field", hint, interval_plot("edit rate per field", rows))


def _speakers(speakers: Sequence[SpeakerFigures]) -> str:
    rows = []
    for row in speakers[:_MOST_ROWS]:
        prompt = f", prompt {row.speaker.prompt_hash[:8]}" if row.speaker.prompt_hash else ""
        name = f"{row.field}: {row.speaker.backend} {row.speaker.model}{prompt}"
        rows += [(f"edited \u00b7 {name}", row.edited), (f"rejected \u00b7 {name}", row.rejected)]
    body = interval_plot("edits and rejects per model and prompt", rows)
    return _card("Edits and rejects, by model and prompt", "Of what people decided.", body)


def _agreement(found: Statistics) -> str:
    rows = [(row.field, row.alpha, _alpha(row)) for row in found.agreement]
    body = level_plot("agreement per field", rows)
    places = [
        (f"boundaries within {row.tolerance_s:g} s", row.f1, f"{row.f1:.2f}, {row.num_pairs:,} pairs")
        for row in found.boundaries
        if row.f1 is not None
    ]
    if places:
        body += f"<h3>Boundary F1 between people</h3>{level_plot('boundary F1', places)}"
    return _card("Agreement, by field", "Krippendorff's alpha over items that several people decided blind.", body)


def _alpha(row: FieldAgreement) -> str:
    return f"{row.num_items:,} items" if row.alpha is None else f"{row.alpha:.2f}, {row.num_items:,} items"


def _pairs(pairs: Sequence[PairAgreement]) -> str:
    rows = [
        (
            f"{row.first} \u00b7 {row.second}: {row.field}",
            row.kappa,
            f"{row.num_same:,} of {row.num_items:,}"
            if row.kappa is None
            else f"{row.kappa:.2f}, {row.num_items:,} items",
        )
        for row in pairs[:_MOST_PAIRS]
    ]
    body = level_plot("agreement per pair", rows) + _more(len(pairs), _MOST_PAIRS)
    return _card("Agreement, by pair", "Cohen's kappa; pairs with the most items in common first.", body)


def _strata(strata: Sequence[Stratum], bound: float, *, may_accept: bool) -> str:
    shown = sorted(strata, key=lambda row: (-row.num_waiting, row.key))[:_MOST_ROWS]
    plot = interval_plot("audited error per stratum", [(row.name, row.error) for row in shown], bound=bound)
    rows = ""
    for row in shown:
        why = refusal(row, bound)
        if not row.num_waiting:
            what = "nothing waits"
        elif why:
            what = f'<span title="{say(why)}">not yet</span>'
        elif may_accept:
            key = say(json.dumps(row.key))
            what = f'<button type="button" data-stratum="{key}" data-num="{row.num_waiting}">Accept the rest</button>'
        else:
            what = "a lead may accept the rest"
        rows += (
            f'<tr><th scope="row">{say(row.name)}</th><td>{row.num_items:,}</td><td>{row.num_audited:,}</td>'
            f"<td>{row.num_wrong:,}</td><td>{row.num_batch:,}</td><td>{row.num_waiting:,}</td><td>{what}</td></tr>"
        )
    words = ("items no program doubts", "items", "audited", "wrong", "in batches", "waiting", "")
    heads = "".join(f'<th scope="col">{word}</th>' for word in words)
    table = f"<table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>{_more(len(strata), _MOST_ROWS)}"
    hint = (
        f"Random audits, with 95 % intervals. Where the whole interval is below {bound:.1%} (the line), "
        "a lead may accept what waits without a look."
    )
    return _card("Audited error, by stratum", hint, plot + table if shown else "", wide=True)
