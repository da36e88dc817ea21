"""What the caches save: the task's prompt is prefilled once, a label costs one short pass, a repeated text nothing."""

import time

from allinone import AllInOne

with AllInOne.load() as ai:
    for title, text in (
        ("first request of the task", "这家店太棒了"),
        ("another text", "等了很久,很失望"),
        ("the same text again", "等了很久,很失望"),
    ):
        start = time.perf_counter()
        result = ai.run("sentiment", text)
        elapsed_ms = (time.perf_counter() - start) * 1000
        usage = result.usage
        print(
            f"{title:26} {elapsed_ms:7.1f} ms  {usage.num_prompt_tokens} tokens, {usage.num_cached_tokens} from cache"
        )
    print(f"result cache: {ai.results.stats().hit_rate:.0%} hits")
