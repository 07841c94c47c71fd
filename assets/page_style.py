"""The look of the evaluation page: one sheet, colours by role, light and dark."""

STYLE = """<style>
:root { --model: #2563c9; --linear: #c2741a; --last: #8257c4; --none: #97a2b3; --card: #f6f8fb; --shade: #eef1f6;
  --train: #9db8dd; --valid: #5d87c4; --test: #1f7a5c; --purge: #d0604f; --embargo: #e8b04b; --cold: #2b7de0;
  --hot: #e0336b }
@media (prefers-color-scheme: dark) { :root { --model: #6ea8ff; --linear: #e5a35a; --last: #b99af0; --none: #6b7687;
  --card: #1c232c; --shade: #1f2731; --train: #3d567d; --valid: #5f8fd6; --test: #58c39b; --purge: #e98a82;
  --embargo: #d9a648; --cold: #5aa9ff; --hot: #ff6b95 } }
body { max-width: 1120px }
header { margin-bottom: 1.6rem }
header h1 { font-size: 2rem; letter-spacing: -.02em; margin: .1rem 0 .3rem; line-height: 1.15 }
.eyebrow { text-transform: uppercase; letter-spacing: .12em; font-size: .72rem; color: var(--soft); margin: 0 }
.verdict { font-size: 1.12rem; line-height: 1.55; color: var(--ink); max-width: 54rem; margin: .9rem 0 0 }
.chips { display: flex; flex-wrap: wrap; gap: .4rem; margin-top: .9rem }
.chips span { background: var(--card); border: 1px solid var(--line); border-radius: 99px; padding: .12rem .7rem;
  font-size: .8rem; color: var(--soft) }
nav { display: flex; flex-wrap: wrap; gap: .3rem 1.1rem; padding: .7rem 0; border-top: 1px solid var(--line);
  border-bottom: 1px solid var(--line); font-size: .85rem; margin-bottom: 1.4rem }
nav a { color: var(--soft); text-decoration: none }
nav a:hover { color: var(--ink); text-decoration: underline }
h2 { font-size: 1.2rem; letter-spacing: -.01em; margin-top: 3rem; scroll-margin-top: 1rem }
h3 { font-size: .9rem; margin: 1.2rem 0 .3rem; font-weight: 600 }
p { max-width: 54rem }
.cards { display: grid; grid-template-columns: repeat(4, 1fr); gap: .8rem }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: .8rem 1rem .6rem }
.card b { display: block; font-size: 1.65rem; font-weight: 600; letter-spacing: -.02em; line-height: 1.25;
  font-variant-numeric: tabular-nums }
.card small { white-space: nowrap }
.card .name { font-size: .8rem; color: var(--soft) }
.card .note { font-size: .78rem; color: var(--soft); display: block; min-height: 1.2em }
.card svg { margin-top: .3rem; display: block }
.two { display: grid; grid-template-columns: 1fr 1fr; gap: 0 2rem }
.two > div { min-width: 0 }
@media (max-width: 820px) { .two { grid-template-columns: 1fr } .cards { grid-template-columns: 1fr 1fr } }
svg { display: block; overflow: visible }
.line { fill: none; stroke-width: 1.8; stroke-linejoin: round; stroke-linecap: round }
.thin { stroke-width: 1.2 } .faint { opacity: .55 } .dashed { stroke-dasharray: 4 4 }
.s-model { stroke: var(--model) } .s-linear { stroke: var(--linear) } .s-last { stroke: var(--last) }
.s-none { stroke: var(--none) } .s-up { stroke: var(--up) } .s-down { stroke: var(--down) }
.s-train { stroke: var(--none) } .s-valid { stroke: var(--model) }
.f-model { fill: var(--model) } .f-linear { fill: var(--linear) } .f-last { fill: var(--last) }
.f-none { fill: var(--none) }
.f-up { fill: var(--up) } .f-down { fill: var(--down) }
.f-train { fill: var(--train) } .f-valid { fill: var(--valid) } .f-test { fill: var(--test) }
.f-purge { fill: var(--purge) } .f-embargo { fill: var(--embargo) } .f-outside { fill: var(--shade) }
.soft { opacity: .75 }
.shade { fill: var(--shade) } .f-shade { fill: var(--line) }
.band { stroke: none; opacity: .18 } .band.strong { opacity: .35 }
.rule { stroke: var(--line); fill: none; stroke-width: 1; opacity: .7 }
.rule.zero { stroke: var(--soft); opacity: .8 } .rule.mark { stroke-dasharray: 2 4; stroke: var(--soft) }
.whisker { stroke: var(--ink); fill: none; stroke-width: 1.2; opacity: .7 }
.lower { stroke: color-mix(in oklab, var(--down), var(--line) var(--mix)) }
.upper { stroke: color-mix(in oklab, var(--up), var(--line) var(--mix)) }
.behind { opacity: .55 }
.dots { fill: none; stroke: color-mix(in oklab, var(--cold), var(--hot) var(--mix)); stroke-width: 4.6;
  stroke-linecap: round; opacity: .8 } .dots.unknown { stroke: var(--none) }
.ramp { display: inline-block; width: 90px; height: 9px; border-radius: 5px;
  background: linear-gradient(90deg in oklab, var(--cold), var(--hot)) }
.n { fill: var(--ink) !important } .big { font-size: 12px !important; font-weight: 600 }
.legend { display: flex; flex-wrap: wrap; gap: .2rem 1.2rem; font-size: .82rem; color: var(--soft); margin: .4rem 0 }
.legend span { display: inline-flex; align-items: center; gap: .4rem }
.key { width: 14px; height: 4px; border-radius: 2px; display: inline-block; background: var(--none) }
.key.k-model, .key.k-valid-line { background: var(--model) } .key.k-linear { background: var(--linear) }
.key.k-last { background: var(--last) } .key.k-up { background: var(--up) } .key.k-down { background: var(--down) }
.key.block { height: 11px; width: 11px } .key.k-train { background: var(--train) }
.key.k-valid { background: var(--valid) }
.key.k-test { background: var(--test) } .key.k-purge { background: var(--purge) }
.key.k-embargo { background: var(--embargo) }
.key.k-shade { background: var(--shade); border: 1px solid var(--line) }
.key.dash { background: repeating-linear-gradient(90deg, var(--model) 0 4px, transparent 4px 7px) }
tr.first td { font-weight: 600 } tr.first td:first-child { color: var(--model) }
details { border: 1px solid var(--line); border-radius: 8px; padding: .5rem .9rem; margin: .6rem 0;
  background: var(--card) }
summary { cursor: pointer; color: var(--soft); font-size: .88rem }
pre { font: 12px/1.5 ui-monospace, monospace; overflow-x: auto; margin: .6rem 0 0; color: var(--ink) }
code { font: .9em ui-monospace, monospace }
.empty { color: var(--soft); background: var(--card); border: 1px dashed var(--line); border-radius: 8px;
  padding: .8rem 1rem; max-width: none }
footer { margin-top: 4rem; color: var(--soft); font-size: .8rem; border-top: 1px solid var(--line); padding-top: .8rem }
@media print { body { max-width: none; margin: 0 } details { break-inside: avoid } }
</style>"""
