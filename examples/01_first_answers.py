"""Load the model once, then ask it for several jobs: each is a prompt, not another model."""

from allinone import AllInOne

with AllInOne.load() as ai:
    mood = ai.run("sentiment", "今天的实验终于成功了,太棒了!")
    print(f"sentiment  {mood.emoji} {mood.label} ({mood.name}), p = {mood.p_max:.2f}")

    emotion = ai.run("emotion", "怎么又下雨了,出门忘了带伞")
    print(f"emotion    {emotion.emoji} {emotion.label} ({emotion.name}), p = {emotion.p_max:.2f}")

    english = ai.run("sentiment.en", "The battery died after two days.")
    print(f"sentiment  {english.emoji} {english.label}, p = {english.p_max:.2f}")

    print("chat       " + (ai.run("chat", "你好呀").text or ""))
