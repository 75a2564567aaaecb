"""Tables and drawings of the measurements of bench/study.py."""
import math
import statistics

from measuring import COLOURS

WIDTH, LEFT, RIGHT, TOP, ROW, GAP, BOTTOM = 860, 150, 150, 40, 24, 34, 44
BUDGET = 0.6875  # of the tables on sensitivity
CONTEXT = "256"


def percent(budget):
    return f"−{100 * budget:g}%"


def table(header, rows):
    """A Markdown table; empty if there are no rows."""
    if not rows:
        return ""
    lines = ["| " + " | ".join(map(str, line)) + " |" for line in (header, *rows)]
    return "\n".join([lines[0], "|---" * len(header) + "|", *lines[1:]]) + "\n"


def select(data, **wanted):
    return [row for row in data["rows"].values() if all(row.get(k) == v for k, v in wanted.items())]


def one(data, **wanted):
    rows = select(data, **wanted)
    return rows[0] if rows else None


def usual(data, selection, factorisation, budget):
    """The rows of the stages for all splits, with the usual calibration."""
    return [row for row in select(data, part="stages", selection=selection, factorisation=factorisation, budget=budget)
            if row["samples"] == 160 and row["text"] == data["calibration"]]


def has_stages(data):
    return bool(select(data, part="stages"))


def fast(data, budget):
    return one(data, part="aligned", quality="fast", budget=budget, samples=480, seq_len=256,
               text=data["calibration"])


def thorough(data, budget):
    return one(data, part="aligned", quality="best", budget=budget, seq_len=256)


def paper(data, budget):
    """The row of 2-norm and joint with the paper's rope-dim."""
    rows = usual(data, "2-norm", "joint", budget)
    return min(rows, key=lambda row: row["rope_dim"]) if rows else None


def nll(row, context=CONTEXT):
    return f"{row['nll'][context]:.4f}" if row and context in row["nll"] else "–"


def split(row):
    return f"{row['rope_dim']} + {row['kv_rank']}"


def gap(data, row, context=CONTEXT):
    return row["nll"][context] - data["original"][context]


def budgets_of(data, every=False):
    found = {row["budget"] for row in select(data, part="aligned")}
    return sorted(found if every else found & {0.5, 0.6875, 0.8125})


def cell(data, row, base):
    return [nll(row), f"{gap(data, row) / gap(data, base):.3f}" if row else "–"]


def layout_table(studies):
    """One rotated key for all heads against one for each KV head at the same cache."""
    rows = []
    for data in studies:
        for budget in sorted({row["budget"] for row in select(data, part="shared key")}):
            by_quality = [one(data, part="shared key", quality=q, budget=budget) for q in ("none", "fast", "best")]
            base = fast(data, budget)
            chosen = by_quality[1]
            ratio = f"{gap(data, chosen) / gap(data, base):.2f}" if chosen and base else "–"
            rows.append([data["model"], percent(budget), f"{data['original'][CONTEXT]:.4f}", nll(paper(data, budget)),
                         nll(one(data, part="transmla", budget=budget)), nll(base), nll(thorough(data, budget)), split(chosen) if chosen else "–",
                         *map(nll, by_quality), ratio])
    return table(["model", "KV", "original", "paper's default", "TransMLA", "`mha2mla` fast", "best", "`deepseek` split", "none", "fast", "best",
                  "gap of fast against fast"], rows)


def frequency_table(studies):
    """`fast` with one rotated key at an engine's frequencies, at those that serve all layers best, and at each layer's own."""
    rows = []
    for data in studies:
        for budget in sorted({row["budget"] for row in select(data, part="frequencies")}):
            others = [one(data, part="frequencies", frequencies=name, budget=budget) for name in ("shared", "free")]
            rows.append([data["model"], percent(budget), nll(one(data, part="shared key", quality="fast", budget=budget)),
                         *map(nll, others)])
    return table(["model", "KV", "`engine`", "`shared`", "`free`"], rows)


def main_table(studies):
    rows = []
    for data in studies:
        for budget in budgets_of(data):
            base, quick, best = paper(data, budget), fast(data, budget), thorough(data, budget)
            if base and quick:
                rows.append([data["model"], percent(budget), f"{data['original'][CONTEXT]:.4f}",
                             f"{nll(base)} ({split(base)})", split(quick), *cell(data, quick, base), *cell(data, best, base),
                             f"{quick['seconds']:.0f} s", f"{best['seconds']:.0f} s" if best else "–"])
    return table(["model", "KV", "original", "paper's default", "split chosen", "`fast`", "ratio", "`best`", "ratio",
                  "`fast` takes", "`best`"], rows)


def stage_names(data):
    found = select(data, part="stages")
    return [list(dict.fromkeys(row[key] for row in found)) for key in ("selection", "factorisation")]


def stage_table(data):
    """With the paper's rope-dim / with the one that `fast` chose; the last column is the least over all splits."""
    selections, factorisations = stage_names(data)
    lines = []
    for budget in budgets_of(data):
        chosen = fast(data, budget)
        for selection in selections:
            cells, every = [], []
            for factorisation in factorisations:
                rows = {row["rope_dim"]: row for row in usual(data, selection, factorisation, budget)}
                every += [(row["nll"][CONTEXT], factorisation, split(row)) for row in rows.values()]
                ends = dict.fromkeys((min(rows), chosen["rope_dim"])) if rows else ()
                cells.append(" / ".join(f"{rows[d]['nll'][CONTEXT]:.3f}" if d in rows else "–" for d in ends) or "–")
            least = min(every, default=None)
            cells.append(f"{least[0]:.3f} ({least[1]}, {least[2]})" if least else "–")
            lines.append([f"{percent(budget)}, {split(chosen)}", selection, *cells])
    return table([f"{data['model']}, {data['original'][CONTEXT]:.3f}", "pairs", *factorisations, "least of all splits"],
                 lines)


def comparison(data, field, better, other, **fixed):
    """How often `better` has a lower NLL than `other`, and the smallest and largest difference, over all budgets and splits."""
    cells = {}
    for row in select(data, part="stages", text=data["calibration"], samples=160, **fixed):
        cells.setdefault((row["selection"] if field != "selection" else row["factorisation"], row["budget"],
                          row["rope_dim"]), {})[row[field]] = row["nll"][CONTEXT]
    gains = [cell[other] - cell[better] for cell in cells.values() if better in cell and other in cell]
    return f"{sum(g > 0 for g in gains)} of {len(gains)}: {min(gains):.3f} – {max(gains):.3f}" if gains else "–"


def comparison_table(studies):
    lines = [[f"{better} over {other}", *(comparison(data, "selection", better, other) for data in studies)]
             for better, other in (("attention", "2-norm"), ("attention", "high"), ("attention", "uniform"),
                                   ("attention", "low"), ("high", "2-norm"), ("uniform", "2-norm"))]
    lines += [[f"{better} over {other}, pairs by attention",
               *(comparison(data, "factorisation", better, other, selection="attention") for data in studies)]
              for better, other in (("whitened", "joint"), ("weighted", "whitened"), ("weighted, phases", "weighted"),
                                    ("split", "joint"))]
    return table(["better in, and by", *(data["model"] for data in studies)], lines)


def every_budget_table(data):
    lines = []
    for budget in budgets_of(data, every=True):
        base, quick = paper(data, budget), fast(data, budget)
        stages = [row for name in ("joint", "weighted, phases") for row in usual(data, "attention", name, budget)
                  if row["rope_dim"] == quick["rope_dim"]]
        if base and len(stages) == 2:
            lines.append([percent(budget), f"{nll(base)} ({split(base)})", split(quick), *map(nll, stages), nll(quick),
                          f"{gap(data, quick) / gap(data, base):.3f}"])
    return table([f"{data['model']}, {data['original'][CONTEXT]:.4f}", "paper's default", "split chosen",
                  "attention, joint", "attention, weighted, phases", "`fast`", "ratio"], lines)


def text_table(studies):
    lines = []
    for data in studies:
        quick = fast(data, BUDGET)
        for row in sorted(select(data, part="aligned", quality="fast", budget=BUDGET, seq_len=256),
                          key=lambda r: (r["text"] != data["calibration"], r["text"], r["samples"])):
            staged = one(data, part="stages", selection="attention", factorisation="weighted", budget=BUDGET,
                         rope_dim=quick["rope_dim"], text=row["text"], samples=row["samples"])
            lines.append([data["model"], row["text"], row["samples"], split(row), nll(row), nll(staged)])
    return table(["model", "calibrated on", "sequences", "split chosen", "`fast`",
                  "attention, weighted, usual split"], lines)


def context_table(studies):
    studies = [data for data in studies if len(data["original"]) > 1]
    contexts = list(studies[0]["original"]) if studies else []
    lines = []
    for data in studies:
        made = [("original", {"nll": data["original"]}), ("paper's default", paper(data, BUDGET))]
        for row in sorted(select(data, part="aligned", budget=BUDGET, text=data["calibration"]),
                          key=lambda r: (r["quality"] == "best", r["seq_len"])):
            if row["quality"] == "best" or row["samples"] * row["seq_len"] == 480 * 256:
                made.append((f"`{row['quality']}`, sequences of {row['seq_len']}", row))
        lines += [[data["model"], name, *(nll(row, c) for c in contexts)] for name, row in made if row]
    return table(["model, at " + percent(BUDGET), "", *(f"context {c}" for c in contexts)], lines) if lines else ""


def split_table(studies):
    lines = []
    for data in studies:
        chosen = split(fast(data, BUDGET))
        for row in sorted(select(data, part="aligned split"), key=lambda r: r["rope_dim"]):
            staged = next((r for r in usual(data, "attention", "whitened", BUDGET) if r["rope_dim"] == row["rope_dim"]), None)
            lines.append([data["model"], split(row) + (", chosen" if split(row) == chosen else ""), nll(staged), nll(row)])
    return table(["model, at " + percent(BUDGET), "split", "attention, whitened", "`fast`"], lines)


def agreement(rows):
    """The mean share of kept pairs that two pieces have in common, over layers, heads and pairs of pieces."""
    heads = [[set(head) for layer in row["pairs"] for head in layer] for row in rows]
    shares = [len(a & b) / len(a) for i, one_ in enumerate(heads) for other in heads[:i] for a, b in zip(one_, other)]
    return statistics.mean(shares)


def piece_table(studies):
    lines = []
    for data in studies:
        found = select(data, part="pieces")
        for rope_dim in sorted({row["rope_dim"] for row in found}):
            rows = [row for row in found if row["rope_dim"] == rope_dim]
            values = [row["nll"][CONTEXT] for row in rows]
            deviation = statistics.stdev(values)
            lines.append([data["model"], rope_dim, len(rows), f"{100 * agreement(rows):.0f}%",
                          f"{statistics.mean(values):.4f}", f"{min(values):.4f} – {max(values):.4f}", f"{deviation:.4f}",
                          f"{deviation / math.sqrt(len(rows)):.4f}"])
    return table(["model", "d_r", "pieces", "pairs in common", "mean NLL", "least – most", "standard deviation",
                  "standard error of the mean"], lines)


def tables(studies):
    refined = [data for data in studies if select(data, part="aligned", quality="fast")]
    staged = [data for data in refined if has_stages(data)]
    parts = [main_table(staged), layout_table(studies), frequency_table(studies), comparison_table(staged) if staged else "", *map(stage_table, staged),
             *(every_budget_table(data) for data in staged if len(budgets_of(data, every=True)) > 3), text_table(refined),
             split_table(refined), context_table(refined), piece_table(studies)]
    return "\n".join(filter(None, parts))


def points(data, budget):
    """The rows of the drawing: a name and (gap, colour, filled, description)."""
    selections, factorisations = stage_names(data)
    chosen = fast(data, budget)["rope_dim"]
    for selection in selections:
        marks = []
        for i, factorisation in enumerate(factorisations):
            rows = usual(data, selection, factorisation, budget)
            marks += [(gap(data, row), COLOURS[i], row["rope_dim"] == chosen, f"{selection}, {factorisation}, {split(row)}")
                      for row in rows]
        yield selection, sorted(marks, key=lambda mark: mark[2])
    aligned = [row for row in (fast(data, budget), thorough(data, budget)) if row]
    yield "aligned", [(gap(data, row), "#000", True, f"{row['quality']}, {split(row)}") for row in aligned]


def draw(data):
    """Draws a panel for each budget, with a line for each selection and a mark at the gap of each factorisation and split."""
    panels = [(budget, list(points(data, budget))) for budget in budgets_of(data)]
    gaps = [mark[0] for _, lines in panels for _, marks in lines for mark in marks]
    positive = [g for g in gaps if g > 0]
    low, high = math.log10(min(positive)) - 0.1, math.log10(max(positive)) + 0.1
    height = TOP + BOTTOM + sum(GAP + ROW * len(lines) for _, lines in panels)

    def x(value):
        share = (math.log10(max(value, 10**low)) - low) / (high - low)
        return LEFT + share * (WIDTH - LEFT - RIGHT)

    title = f"{data['model']}: NLL above the original’s {data['original'][CONTEXT]:.3f}, nothing fine-tuned"
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" '
             f'font-size="12" role="img"><title>{title}</title>', f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>',
             f'<text x="20" y="22" font-size="14" font-weight="bold">{title}</text>']
    for value in (m * 10.0**p for p in range(-4, 2) for m in (1, 2, 5)):
        if low <= math.log10(value) <= high:
            parts.append(f'<path d="M{x(value):.1f} {TOP}V{height - BOTTOM}" stroke="#ddd"/><text x="{x(value):.1f}" '
                         f'y="{height - BOTTOM + 17}" text-anchor="middle">{value:g}</text>')
    parts.append(f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{height - 8}" text-anchor="middle">nats per token</text>')
    y = TOP
    for budget, lines in panels:
        parts.append(f'<text x="20" y="{y + 20}" font-weight="bold">KV cache {percent(budget)}</text>')
        y += GAP
        for name, marks in lines:
            parts.append(f'<path d="M{LEFT} {y}H{WIDTH - RIGHT}" stroke="#eee"/><text x="{LEFT - 12}" y="{y + 4}" '
                         f'text-anchor="end">{name}</text>')
            for value, colour, filled, label in marks:
                shape = f'fill="{colour}"' if filled else f'fill="none" stroke="{colour}" stroke-opacity="0.6"'
                parts.append(f'<circle cx="{x(value):.1f}" cy="{y}" r="{4.5 if filled else 3}" {shape}><title>{label}: '
                             f"+{value:.4f}</title></circle>")
            y += ROW
    key = TOP + 20
    names = stage_names(data)[1]
    for colour, name in [*zip(COLOURS, names), ("#000", "aligned: best, fast")]:
        parts.append(f'<circle cx="{WIDTH - RIGHT + 20}" cy="{key}" r="4.5" fill="{colour}"/><text '
                     f'x="{WIDTH - RIGHT + 32}" y="{key + 4}">{name}</text>')
        key += 20
    parts.append(f'<text x="{WIDTH - RIGHT + 14}" y="{key + 8}" font-size="11" fill="#555">filled: split that fast</text>'
                 f'<text x="{WIDTH - RIGHT + 14}" y="{key + 22}" font-size="11" fill="#555">chose; hollow: others</text>')
    return "\n".join(parts) + "\n</svg>\n"
