"""Mood first, then the reply as it is written; both come from one model, and the reply knows the mood."""

from allinone import AllInOne

with AllInOne.load() as ai:
    reply = ai.reply("今天的实验终于成功了,太棒了!")
    print(f"{reply.mood.emoji} {reply.mood.label} ({reply.mood.p_max:.2f})")
    for event in reply:
        print(event.text, end="", flush=True)
    print()

    result = reply.result()
    print(f"[{result.finish_reason}: {result.usage.num_output_tokens} tokens in {result.timings.total_s:.2f} s]")
