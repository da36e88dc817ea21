"""Opinion words and small phrase grammars: the vocabulary of sentiment that a small labelled set does not show.

Written for this recipe. `phrases` combines the words with frames, negation included; `teacher` uses them as features.
"""

import random

EN_POSITIVE = """
good great excellent wonderful amazing awesome fantastic brilliant superb terrific marvelous outstanding lovely beautiful
gorgeous delightful charming enjoyable entertaining engaging compelling gripping captivating fascinating absorbing riveting
moving touching poignant heartfelt heartwarming warm funny hilarious witty clever smart intelligent thoughtful insightful
perceptive honest sincere authentic genuine original inventive imaginative creative fresh refreshing inspired inspiring
uplifting powerful stirring memorable unforgettable remarkable impressive stunning breathtaking dazzling spectacular
magnificent masterful masterpiece triumph gem treat delight pleasure joy fun exciting thrilling exhilarating energetic
lively vibrant vivid rich rewarding satisfying solid strong sharp sly subtle nuanced elegant graceful stylish polished
polished accomplished skillful perfect flawless ideal best finest favorite superior first-rate top-notch worthy worthwhile
recommended loved love loves enjoy enjoyed enjoys likable likeable appealing adorable sweet tender romantic magical
enchanting mesmerizing hypnotic haunting provocative daring bold ambitious timeless classic happy glad pleased satisfied
thankful grateful comfortable clean friendly helpful kind polite generous delicious tasty fresh quick fast reliable sturdy
affordable convenient recommend praise admire appreciate excited proud hopeful celebrate success won win beautifully
wonderfully brilliantly perfectly deeply surprisingly amusing playful humorous laugh smile winning deft crisp tight
effective convincing believable suspenseful intriguing intense atmospheric lush sensitive humane wise compassionate
accessible buoyant breezy nimble exquisite sublime glorious extraordinary exceptional phenomenal incredible charismatic
""".split()
EN_NEGATIVE = """
bad terrible awful horrible dreadful poor worst worse lousy crappy pathetic lame boring dull tedious tiresome dreary bland
flat lifeless soulless hollow empty shallow superficial pointless meaningless mindless stupid dumb idiotic silly ridiculous
absurd laughable preposterous inane incoherent confusing muddled messy mess sloppy clumsy awkward clunky forced contrived
predictable formulaic generic derivative unoriginal stale tired cliche cliched trite hackneyed corny cheesy sappy mawkish
manipulative pretentious self-indulgent overwrought overlong bloated slow sluggish plodding meandering dragging lacks lack
lacking fails fail failed failure flop disaster dud waste wasted wasting disappointing disappointed disappointment
disappoints unfunny humorless charmless joyless unpleasant ugly nasty disgusting gross repulsive offensive annoying
irritating grating obnoxious insulting unbearable painful excruciating torture misguided inept incompetent amateurish
cheap shoddy flimsy weak thin uneven inconsistent unconvincing implausible unbelievable uninspired uninteresting
unsatisfying unnecessary forgettable mediocre inferior overrated underwhelming unimaginative sad depressing bleak
miserable hate hated hates dislike regret avoid refund broken useless defective dirty rude cold late slow overpriced
expensive noisy smelly angry upset furious worried afraid scared lonely cry hurt pain sick tired exhausted stressed
frustrated frustrating unfortunately sadly hopeless problem trouble wrong mistake ruined stinks sucks garbage trash junk
crude vulgar tasteless gratuitous heavy-handed preachy simplistic one-dimensional cardboard wooden stilted listless
listless leaden ponderous turgid murky choppy disjointed scattershot half-baked halfhearted lazy witless cynical smug
hardly barely instead merely neither excuse neglects ludicrous nonsense gimmicky limp stiff insipid vapid banal
""".split()
ZH_POSITIVE = """
好 很好 不错 喜欢 满意 推荐 开心 高兴 漂亮 方便 舒服 干净 好吃 便宜 实惠 快 热情 周到 精彩 感人 好看 好用 清晰 流畅 完美 超值 物美价廉
值得 惊喜 温馨 贴心 美味 新鲜 优秀 棒 赞 给力 幸福 感谢 成功 顺利 期待 可爱 有趣 耐心 专业 划算 结实 安静 美好 愉快 激动 骄傲 放心
""".split()
ZH_NEGATIVE = """
差 很差 太差 不好 失望 难吃 难看 难用 垃圾 后悔 讨厌 生气 难过 伤心 贵 脏 慢 吵 冷淡 恶劣 破 坏了 不值 浪费 上当 骗人 假货 无聊 枯燥
麻烦 糟糕 恶心 不满 退货 投诉 差评 难受 痛苦 郁闷 烦 累 害怕 担心 失败 倒霉 崩溃 劣质 粗糙 掉色 卡顿 发热 没用 无语 气人 敷衍 破损
""".split()

_EN_FRAMES = (
    "{w}", "a {w} film", "a {w} movie", "{w} and {v}", "so {w}", "very {w}", "it 's {w}", "it is {w}", "this is {w}", "really {w}",
    "a {w} , {v} story", "the acting is {w}", "the movie is {w} and {v}", "the plot is {w}", "{w} performances", "a {w} ride",
    "a {w} , {v} piece of work", "the product is {w}", "the service was {w}", "{w} from start to finish", "the food was {w}",
    "an exercise in {w}", "it feels {w}", "the result is {w}", "{w} characters", "the script is {w} , the direction {v}",
)
_EN_NEGATED = ("not {w}", "isn't {w}", "it 's not {w}", "never {w}", "far from {w}", "neither {w} nor {v}", "not {w} at all", "lacks anything {w}")
_ZH_FRAMES = ("{w}", "真{w}", "感觉{w}", "这个东西{w}", "{w}，{v}", "质量{w}", "服务{w}", "整体{w}", "用起来{w}", "总之{w}", "有点{w}", "非常{w}")


def phrases(rng: random.Random, count: int, language: str = "en") -> list[tuple[str, str]]:
    """Short phrases with "pos" or "neg"."""
    found: list[tuple[str, str]] = []
    positive, negative = (EN_POSITIVE, EN_NEGATIVE) if language == "en" else (ZH_POSITIVE, ZH_NEGATIVE)
    for _ in range(count):
        label = rng.choice(("pos", "neg"))
        words = positive if label == "pos" else negative
        frame = rng.choice(_EN_FRAMES if language == "en" else _ZH_FRAMES)
        if language == "en" and rng.random() < 0.15:
            frame = rng.choice(_EN_NEGATED)
            words = EN_POSITIVE[:60] if label == "neg" else EN_NEGATIVE[:12]
        text = frame.format(w=rng.choice(words), v=rng.choice(words))
        if language == "en" and rng.random() < 0.3:
            text = text.replace(" 's", "'s").capitalize() + rng.choice([".", "!", " ."])
        found.append((text, label))
    return found
