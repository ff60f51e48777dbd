"""Verdicts for other programs: a table for a pull request's comment, and JUnit's XML."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from xml.etree import ElementTree as Xml

from alexsim.bench.verdicts import COUNTED, BenchRun, Verdict, by_change
from alexsim.report.bench import interval_text, percent, value_text

_SHOWN = 60
"""Rows: a comment may have 65,536 characters, and a name with its two values some hundreds."""
_LONGEST = 200
"""Characters of a cell."""
_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def markdown(run: BenchRun, verdicts: Sequence[Verdict], *, tolerance: float) -> str:
    """What failed in a line, then a table of what is not the baseline's and of all ratios.

    Largest relative change first. Names and values are in code spans: nothing in them is markup,
    and nobody is mentioned.
    """
    failing = sum(v.fails for v in verdicts)
    judged = sum(v.status != "no baseline" for v in verdicts)
    word = "failed" if failing else "passed"
    amiss = f"{failing} of {judged} figures" if failing else f"{judged} figures"
    lines = [f"**alexsim gate {word}** for {_code(run.network)}: {amiss}", ""]
    rows = by_change(v for v in verdicts if v.status != "same")
    if rows:
        lines += [
            "| change | figure | baseline | now | verdict |",
            "| ---: | :--- | ---: | ---: | :--- |",
            *map(_row, rows[:_SHOWN]),
            *([f"| | {_more(len(rows))} | | | |"] if len(rows) > _SHOWN else []),
            "",
        ]
    counts = Counter(v.status for v in verdicts)
    counted = sum(counts[status] for status in COUNTED)
    said = [f"{counts['same']} of {counted} counted figures are the same"] if counted else []
    if counted < len(verdicts):
        said.append(
            f"a ratio fails where its whole interval is more than {100 * tolerance:g} % slower"
        )
    if counts["no baseline"]:
        said.append("ratios without a baseline of this machine are shown, not judged")
    said += [f"left out: {what} ({why})" for what, why in run.left_out.items()]
    said.append(f"on {_code(run.host.key)}")
    return "\n".join([*lines, "; ".join(said) + "."]) + "\n"


def junit(run: BenchRun, verdicts: Sequence[Verdict]) -> str:
    """A test case for each figure: a failure says what was expected and what was found.

    A ratio whose machine the baseline does not have is a skipped case.
    """
    skipped = [v for v in verdicts if v.status == "no baseline"]
    counts = {
        "tests": str(len(verdicts)),
        "failures": str(sum(v.fails for v in verdicts)),
        "errors": "0",
        "skipped": str(len(skipped)),
    }
    root = Xml.Element("testsuites", {"name": "alexsim check bench"} | counts)
    suite = Xml.SubElement(
        root, "testsuite", {"name": _xml(run.network), "hostname": _xml(run.host.key)} | counts
    )
    if run.left_out:
        properties = Xml.SubElement(suite, "properties")
        for what, why in run.left_out.items():
            Xml.SubElement(properties, "property", name=f"left out: {what}", value=_xml(why))
    for verdict in verdicts:
        kind = "counted" if verdict.status in COUNTED else "timed"
        case = Xml.SubElement(
            suite, "testcase", classname=_xml(f"{run.network}.{kind}"), name=_xml(verdict.name)
        )
        if verdict.fails:
            change = percent(verdict.relative_change)
            failure = Xml.SubElement(
                case, "failure", type=verdict.status, message=_xml(_message(verdict))
            )
            failure.text = _xml(
                f"expected: {value_text(verdict.before)}\n"
                f"given: {value_text(verdict.after)}\n" + (f"change: {change}\n" if change else "")
            )
        elif verdict in skipped:
            why = f"{value_text(verdict.after)}; the baseline has no ratio of this machine"
            Xml.SubElement(case, "skipped", message=why)
    Xml.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + Xml.tostring(root, "unicode") + "\n"


def _message(verdict: Verdict) -> str:
    change = percent(verdict.relative_change)
    return (
        f"{verdict.status}{f' {change}' if change else ''}: expected {value_text(verdict.before)},"
        f" got {value_text(verdict.after)}"
    )


def _row(verdict: Verdict) -> str:
    change = percent(verdict.relative_change)
    if verdict.change:
        change += f" ({interval_text(verdict)})"
    status = f"**{verdict.status}**" if verdict.fails else verdict.status
    before, after = (_code(value_text(v, missing="")) for v in (verdict.before, verdict.after))
    return f"| {change} | {_code(verdict.name)} | {before} | {after} | {status} |"


def _more(rows: int) -> str:
    return f"and {rows - _SHOWN} more: `--json` or `--junit` has all"


def _code(text: str) -> str:
    """A code span, in a table too, of whatever text."""
    text = re.sub(r"\s", " ", text)
    if len(text) > _LONGEST:
        text = f"{text[:_LONGEST]}..."
    if not text.strip():
        return ""
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    room = " " if "`" in text else ""
    return f"{fence}{room}{text}{room}{fence}".replace("|", "\\|")


def _xml(text: str) -> str:
    """Without the characters that no XML may have: escaped as Python escapes them."""
    return _NO_XML.sub(lambda match: match[0].encode("unicode_escape").decode(), text)
