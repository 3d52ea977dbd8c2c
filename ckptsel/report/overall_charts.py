"""The chart of several targets: who is how far behind the best on which."""

from typing import Any

import altair as alt

from ckptsel.report.charts import NARROW, Drawing
from ckptsel.results.ranking import ACCURACY
from ckptsel.results.targets import TargetsRecord, regret_unit

ROW_HEIGHT = 32


def draw_regrets(record: TargetsRecord) -> list[Drawing]:
    """A heat map: candidates across in the order of training, targets down, regrets in the cells; none
    where no regret is known."""
    factor, form = (100, ".1f") if record.unit == ACCURACY else (1, ".3f")
    candidates = sorted(record.candidates, key=lambda row: row.order)
    values: list[dict[str, Any]] = [
        {"candidate": row.name, "target": name, "regret": factor * on.regret.value}
        for row in candidates
        for name, on in row.targets.items()
        if on.regret is not None
    ]
    if not values:
        return []
    middle = max(value["regret"] for value in values) / 2
    names = [row.name for row in candidates]
    targets = [target.name for target in record.targets]
    title = f"regret, {regret_unit(record)}"
    base = alt.Chart().encode(
        x=alt.X("candidate:N", sort=names, title=None, axis=alt.Axis(labelAngle=-45)),
        y=alt.Y("target:N", sort=targets, title=None),
        tooltip=["target:N", "candidate:N", alt.Tooltip("regret:Q", format=form, title=title)],
    )
    # Dark is far behind, so that what is good everywhere is a light column.
    scale = alt.Scale(scheme="viridis", reverse=True)
    ink = alt.condition(f"datum.regret > {middle}", alt.value("white"), alt.value("black"))
    size = alt.ExprRef(
        f"width / {len(names)} < 30 || width < {NARROW} && {len(names)} > 8 ? 0 : 11"
    )
    chart = alt.layer(
        base.mark_rect().encode(color=alt.Color("regret:Q", scale=scale, legend=None)),
        base.mark_text(fontSize=size).encode(text=alt.Text("regret:Q", format=form), color=ink),
        data=alt.Data(values=values),
    )
    about = "Of each checkpoint on each target, in the order of training. 0 is the best there."
    sized = chart.properties(width="container", height=ROW_HEIGHT * len(targets))
    return [Drawing("regret", "overall", f"Behind the best: {title}", about, sized)]
