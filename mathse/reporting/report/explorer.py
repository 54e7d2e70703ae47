"""Where a page's paths are listed: the form of the filters, and the data that ``explorer.js`` draws cards from."""

from __future__ import annotations

from mathse.reporting.report.svg import safe

CHOICES = {
    "verdict": ("Verdict", {"": "any", "accepted": "accepted", "rejected": "rejected", "unparsed": "unparsed",
                            "none": "not judged"}),
    "judge": ("Judge was", {"": "right or wrong", "right": "right", "wrong": "wrong"}),
    "right": ("Answer is", {"": "right or wrong", "right": "right", "wrong": "wrong"}),
    "kind": ("Kind of problem", {"": "any"}),
    "origin": ("Written by", {"": "anyone"}),
    "sort": ("Order", {"": "mixed outcomes", "low": "P(correct), lowest first", "high": "P(correct), highest first",
                       "written": "as written"}),
}  # fmt: skip


def explorer(listing: str, parts: str = "") -> str:
    """``listing``: what stands in the page itself, as ``listing.listing_inside`` writes it. ``parts``: the name of the
    folder beside the page that has all paths; none where the page has them all."""
    selects = "".join(
        f'<label>{label} <select name="{name}">'
        + "".join(f'<option value="{value}">{text}</option>' for value, text in options.items())
        + "</select></label>"
        for name, (label, options) in CHOICES.items()
    )
    return f"""
<noscript><p class="nopic">Paths are drawn by this page's script, which is switched off here.</p></noscript>
<div id="explorer" data-parts="{safe(parts)}">
<div class="chosen" hidden><h3 id="chosen" tabindex="-1"></h3><a id="back" href="#gallery">back to the list</a></div>
<form class="filters" id="filters" aria-label="Which paths are shown" hidden>
  <label>Paths of <select name="stage"><option value="">every stage</option></select></label>
  {selects}
  <label class="grow">Search
    <input type="search" name="words" placeholder="words of a question, path or critique"></label>
  <button type="reset">Clear</button>
</form>
<output id="shown" aria-live="polite"></output>
<div class="cards" id="cards"></div>
<button type="button" id="more" class="more" hidden>Show more</button>
<dialog id="zoom" aria-label="the problem's picture, enlarged"><img alt="the problem's picture"><form method="dialog">
<button>Close</button></form></dialog>
<script type="application/json" id="listing">{listing}</script>
</div>"""
