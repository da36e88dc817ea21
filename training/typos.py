"""Wrong characters as people type them: same or similar sound, similar shape, and what the correction sets show."""

import random
from collections import Counter, defaultdict
from functools import lru_cache
from pathlib import Path

from pypinyin import lazy_pinyin

from training.sources import CJK
from training.trainable import load_trainable

# Characters that look alike; any of a group is written for another.
SHAPES = (
    *("已己巳", "未末", "土士", "人入八", "大太犬", "日目曰", "天夭无", "干千于", "今令", "午牛", "田由甲申", "见贝"),
    *("力刀刃", "戊戌戍", "候侯", "拨拔", "析折拆", "晴睛清情请", "喝渴竭", "辨辩辫", "壁璧", "徒陡", "技枝", "扰优"),
    *(
        "抱饱泡炮跑",
        "采彩睬",
        "仑仓",
        "师帅",
        "历厉",
        "免兔",
        "鸟乌岛",
        "买卖",
        "要耍",
        "遗遣",
        "很恨狠",
        "密蜜",
        "凉谅晾",
    ),
    *("幻幼", "哀衰", "旦但", "杨扬", "玩完", "快块决", "住往注柱", "没设", "找我", "直真", "底低抵", "练炼", "睡垂"),
    *("园圆", "坐座", "的地得", "在再", "做作", "像象", "带戴", "账帐", "他她它", "那哪", "第弟", "常长尝", "近进"),
    *("观欢现", "阴阳", "奖浆桨", "梁粱", "题提", "摸模膜", "载栽裁", "措错借", "挫锉", "竟竞境", "待侍持", "特持"),
)
NEAR = (("zh", "z"), ("ch", "c"), ("sh", "s"), ("ang", "an"), ("eng", "en"), ("ing", "in"), ("n", "l"), ("f", "h"))


def near_sounds(sound: str) -> list[str]:
    """Sounds that are often confused with this one: z and zh, an and ang, n and l."""
    found: list[str] = []
    for one, other in NEAR:
        at_end = one.endswith(("ng", "n")) and len(one) > 1
        for old, new in ((one, other), (other, one)):
            if at_end and sound.endswith(old) and not (old == other and sound.endswith(one)):
                found.append(sound[: -len(old)] + new)
            elif not at_end and sound.startswith(old) and not (old == other and sound.startswith(one)):
                found.append(new + sound[len(old) :])
    return found


class Typist:
    """Writes wrong characters into Chinese text."""

    def __init__(self, data: Path) -> None:
        """Counts what is confused in the correction sets, and which characters sound the same."""
        self.seen: dict[str, Counter[str]] = defaultdict(Counter)
        for name in ("sighan1X", "ecspell_ALL"):
            for record in load_trainable(data, name):
                if len(record["src"]) == len(record["tgt"]):
                    for wrong, right in zip(record["src"], record["tgt"], strict=True):
                        if wrong != right and CJK.match(right) and CJK.match(wrong):
                            self.seen[right][wrong] += 1
        self.shape: dict[str, str] = defaultdict(str)
        for group in SHAPES:
            for character in group:
                self.shape[character] += group.replace(character, "")
        texts = [r["tgt"] for name in ("sighan1X", "ecspell_ALL") for r in load_trainable(data, name)]
        texts += [r["zh"] for r in load_trainable(data, "tatoeba_cmn_eng")]
        texts += [r["text"] for r in load_trainable(data, "zh_online_shopping_10_cats", 15_000)]
        self.common = Counter(c for text in texts for c in text if CJK.match(c))
        known = [c for c, n in self.common.most_common(3800) if n > 3]
        self.sound = dict(zip(known, (lazy_pinyin(c)[0] for c in known), strict=True))
        self.by_sound: dict[str, list[str]] = defaultdict(list)
        for character, sound in self.sound.items():
            self.by_sound[sound].append(character)

    def wrong(self, character: str, rng: random.Random) -> str | None:
        """A character that somebody might write instead, or None when nothing is known about this one."""
        draw = rng.random()
        if draw < 0.4 and self.seen[character]:
            return rng.choice(list(self.seen[character].elements()))
        if draw < 0.5 and self.shape[character]:
            return rng.choice(self.shape[character])
        sound = self.sound.get(character)
        if sound is None:
            return None
        sounds = [sound] if draw < 0.85 else near_sounds(sound) or [sound]
        pool = [c for s in sounds for c in self.by_sound[s] if c != character]
        return rng.choices(pool, weights=[self.common[c] ** 0.5 for c in pool])[0] if pool else None

    def misspell(self, text: str, rng: random.Random, count: int) -> str:
        """The text with at most `count` wrong characters."""
        characters = list(text)
        places = [i for i, c in enumerate(characters) if CJK.match(c)]
        rng.shuffle(places)
        for place in places:
            if count == 0:
                break
            wrong = self.wrong(characters[place], rng)
            if wrong and wrong != characters[place]:
                characters[place] = wrong
                count -= 1
        return "".join(characters)


@lru_cache(maxsize=1)
def typist(data: Path) -> Typist:
    """The typist of a data folder."""
    return Typist(data)
