"""A chat that remembers: each turn prefills its own tokens only."""

from allinone import AllInOne

with AllInOne.load() as ai:
    conversation = ai.conversation()
    for text in ("你好呀", "我今天心情不好", "谢谢你"):
        before = ai.stats().num_prefilled_tokens
        reply = ai.reply(text, conversation)
        print(f"> {text}\n{reply.mood.emoji} {reply.result().text}")
        prefilled = ai.stats().num_prefilled_tokens - before
        print(f"  [{conversation.num_tokens} tokens in the conversation, {prefilled} prefilled for this turn]")
    conversation.close()
