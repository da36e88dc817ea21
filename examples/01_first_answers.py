"""Load the model once, then ask it for several jobs: each is a prompt, not another model."""

from allinone import AllInOne

with AllInOne.load() as ai:
    mood = ai.run("sentiment", "今天的实验终于成功了,太棒了!")
    print(f"sentiment  {mood.emoji} {mood.label} ({mood.name}), p = {mood.p_max:.2f}")

    emotion = ai.run("emotion", "他居然骗了我,气死我了")
    print(f"emotion    {emotion.emoji} {emotion.label} ({emotion.name}), p = {emotion.p_max:.2f}")

    english = ai.run("sentiment.en", "Great sound and easy to set up.")
    print(f"sentiment  {english.emoji} {english.label}, p = {english.p_max:.2f}")

    print("chat       " + (ai.run("chat", "你好呀").text or ""))
