"""Many texts in one go: batched, in order; a text that cannot be answered gives its error in its place."""

from allinone import AllInOne, AllInOneError

REVIEWS = ["味道很好,会再来", "等了一个小时,太失望了", "", "Great value for money!", "The screen broke on day one."]

with AllInOne.load() as ai:
    for review, outcome in zip(REVIEWS, ai.map("sentiment", REVIEWS, on_error="return"), strict=True):
        if isinstance(outcome, AllInOneError):
            print(f"error: {outcome.message}")
        else:
            print(f"{outcome.emoji} {outcome.label} {outcome.p_max:.2f}  {review}")
