"""What scenarios measure: kept as a line of JSON each, shown side by side."""

import json
import math

NAME = "figures"  # the file of a scenario's figures, in its directory


def quantile(ordered, share):
    """The smallest value that so many of all do not exceed."""
    return ordered[max(math.ceil(share * len(ordered)) - 1, 0)]


def note(place, what, values, target=""):
    """Keeps a figure: values in milliseconds, and what is aimed at, in words."""
    ordered = sorted(values)
    if not ordered:
        raise AssertionError(f"nothing was measured: {what}")
    summary = {"min": ordered[0], "p50": quantile(ordered, 0.5), "p99": quantile(ordered, 0.99), "max": ordered[-1]}
    figure = {"scenario": place.scenario, "subject": place.subject, "figure": what, "target": target, "count": len(ordered),
              **{name: round(value, 1) for name, value in summary.items()}}
    with open(place.directory / NAME, "a") as out:
        out.write(json.dumps(figure) + "\n")


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def table(figures):
    """The lines of a table: each figure once, with a line for each subject."""
    for scenario, what in dict.fromkeys((one["scenario"], one["figure"]) for one in figures):
        of_it = [one for one in figures if (one["scenario"], one["figure"]) == (scenario, what)]
        target = of_it[0]["target"]
        yield f"{scenario}: {what}, ms{f' (target: {target})' if target else ''}"
        for one in of_it:
            yield (f"    {one['subject']:6} min {one['min']:9.1f}  median {one['p50']:9.1f}  p99 {one['p99']:9.1f}  "
                   f"max {one['max']:9.1f}  of {one['count']}")
