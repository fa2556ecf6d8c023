"""Makes the tables of report.py: one row a method, one column a measure, for each benchmark and its groups."""

from collections.abc import Mapping, Sequence
from typing import Any

from benchmark.baselines import BASELINES
from benchmark.html_elements import ET, Cell, table, tag
from benchmark.table import LOWER_IS_BETTER, PUBLISHED_ROW, SECONDS_KEY, format_score, with_unit

Result = Mapping[str, Any]
Row = Mapping[str, Any]


def title(result: Result) -> str:
    """Returns the heading of a result; results of the same heading share a table."""
    if "results" in result:
        return f"Speed of {result['model']}" if "model" in result else "Speed"
    if "clip" in result:
        return str(result["clip"])
    return f"{result['set']}, protocol {result['protocol']}" if "protocol" in result else str(result["set"])


def quality_tables(results: Sequence[Result]) -> list[ET.Element]:
    """Returns the tables of results that share a heading: one for each group, or for each kind of camera motion."""
    if "motions" in results[0]:
        return motion_tables(results)
    groups = dict.fromkeys(row["group"] for result in results for row in result["rows"])
    return [group_table(results, group) for group in groups]


def group_table(results: Sequence[Result], group: str) -> ET.Element:
    """Returns the table of one group: the published figures, every network, then every baseline once."""
    rows = [[row for row in result["rows"] if row["group"] == group] for result in results]
    metrics = list(dict.fromkeys(row["metric"] for own in rows for row in own))
    lines: list[tuple[str, dict[str, Row]]] = []
    known: dict[str, Row] = {
        row["metric"]: {"value": row["published"]} for own in rows for row in own if row["published"] is not None
    }
    if known:
        lines.append((PUBLISHED_ROW, known))
    for result, own in zip(results, rows, strict=True):
        networks = {name: values for name, values in method_rows(own).items() if name not in BASELINES}
        lines += [(name + setting(result), values) for name, values in networks.items()]
    baselines = {name: values for own in reversed(rows) for name, values in method_rows(own).items()}
    lines += [(name, baselines[name]) for name in BASELINES if name in baselines]
    best = {
        metric: best_value(metric, [values for name, values in lines if name != PUBLISHED_ROW]) for metric in metrics
    }
    heads = ["method", *("s" if metric == SECONDS_KEY else with_unit(metric) for metric in metrics)]
    body = [[name, *(number(metric, values.get(metric), best[metric]) for metric in metrics)] for name, values in lines]
    return table(heads, body, group)


def motion_tables(results: Sequence[Result]) -> list[ET.Element]:
    """Returns a table for each kind of camera motion and each measure, one column an amount of motion."""
    tables = []
    for kind, motion in results[0]["motions"].items():
        for metric in results[0]["metrics"]:
            lines: dict[str, list[Cell]] = {}
            for result in results:
                values = {(row["method"], row["group"]): row for row in result["rows"] if row["metric"] == metric}
                for name in dict.fromkeys(method for method, _ in values):
                    cells = (number(metric, values.get((name, group)), None) for group in motion["groups"])
                    lines.setdefault(name, [name, *cells])
            heads = ["method", *(f"{amount:g}" for amount in motion["amounts"])]
            tables.append(table(heads, list(lines.values()), f"{with_unit(metric)} by {kind} ({motion['unit']})"))
    return tables


def method_rows(rows: Sequence[Row]) -> dict[str, dict[str, Row]]:
    """Returns the rows by method and measure, methods in order of appearance."""
    found: dict[str, dict[str, Row]] = {}
    for row in rows:
        found.setdefault(row["method"], {})[row["metric"]] = row
    return found


def setting(result: Result) -> str:
    """Returns the difference between runs of the same weights: another flow scale, or averaging with turned frames."""
    scale = result.get("scale", 1.0)
    return (f", scale {scale:g}" if scale != 1 else "") + (", turned frames averaged" if result.get("tta") else "")


def best_value(metric: str, methods: Sequence[Mapping[str, Row]]) -> float | None:
    """Returns the best finite value of a measure; None for times, and where fewer than two methods have one."""
    values = [row["value"] for own in methods if (row := own.get(metric)) and row["value"] is not None]
    if metric == SECONDS_KEY or len(values) < 2:
        return None
    return min(values) if metric in LOWER_IS_BETTER else max(values)


def number(metric: str, row: Row | None, best: float | None) -> Cell:
    """Returns a figure as tables show it, with its exact value for programs; the best one is strong."""
    if row is None:
        return ""
    value = row["value"]
    if value is None:
        return "inf"
    text: Cell = tag("strong", format_score(metric, value)) if value == best else format_score(metric, value)
    return tag("data", text, value=repr(value))
