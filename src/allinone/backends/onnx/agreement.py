"""FP32 against the compiled graph: do both give the same label, and how far apart are the log-probabilities?

Owns the built-in texts and the comparison. `compile.py` runs it for every model it compiles; the report is part of the
manifest. The texts are our own sentences, Chinese and English, clear and mixed and neutral, short and longer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from allinone.backends.base import Backend, Chunk
from allinone.backends.onnx.manifest import AgreementReport
from allinone.models.chat_template import ChatTemplate
from allinone.models.tokenizer import Tokenizer
from allinone.types import Message, Segment

FloatArray: TypeAlias = NDArray[np.float32]

MIN_MARGIN = 0.3
"""Nats between the two best labels of FP32, above which int8 must give the same label."""

_CHINESE = (
    "今天的实验终于成功了，太棒了！",
    "等了四十分钟，菜是凉的，再也不来了。",
    "会议改到下周三下午三点，地点不变。",
    "屏幕很清晰，电池也耐用，就是有点重。",
    "客服态度很差，问题拖了一个星期还没解决。",
    "老板人很好，还送了我们一盘水果。",
    "房间不大，但是干净安静，住得很舒服。",
    "快递把箱子摔破了，里面的杯子全碎了。",
    "第三章介绍了实验设备和测量方法。",
    "我今天心情不好，什么都不想做。",
    "这本书的翻译读起来很别扭，看了两页就放下了。",
    "孩子第一次自己系好了鞋带，高兴得跳了起来。",
    "价格和别家差不多，服务一般。",
    "没想到这么便宜的耳机音质居然这么好。",
    "本店营业时间为上午九点到晚上十点。",
    "退款申请提交三次都被驳回，太让人生气了。",
    "风景很美，可惜人太多，拍照都要排队。",
    "昨晚又失眠了，一想到明天的面试就紧张。",
    "味道还是小时候的味道，吃着吃着就想家了。",
    "软件更新以后经常闪退，建议先不要升级。",
)
_ENGLISH = (
    "The battery lasts two full days and the screen is gorgeous.",
    "I waited an hour for cold soup and nobody apologised.",
    "The train leaves from platform four at half past six.",
    "A warm, funny film that left me smiling all evening.",
    "It broke after a week and the shop refused to help.",
    "The plot is thin, but the acting almost saves it.",
    "Please find the minutes of the meeting attached.",
    "Honestly the best birthday present I have ever had!",
    "I am so tired of explaining the same problem again and again.",
    "Water boils at a lower temperature in the mountains.",
    "The room was smaller than in the pictures, though very clean.",
    "She thanked everyone twice and could not stop laughing.",
    "Terrible sound, terrible seats, and far too expensive.",
    "Not bad for the price, but do not expect miracles.",
    "They fixed my bike in ten minutes and charged nothing.",
    "The committee will publish its report in September.",
    "Another delay, another excuse, and still no refund.",
    "What a beautiful morning, I feel ready for anything.",
    "He never called back, and I stopped hoping.",
    "The recipe needs two eggs, flour and a little salt.",
)
_PROMPTS = (
    ("你是情感分析师。判断文本的情感，只输出一个标签：正面、负面、中性。", ("正面", "负面", "中性"), _CHINESE),
    ("You judge the sentiment of a text. Answer with one label only: positive, negative, neutral.",
     ("positive", "negative", "neutral"), _ENGLISH),
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class AgreementCase:
    """A whole prompt, and the token ids that its labels begin with (at least two, all different)."""

    input_ids: tuple[int, ...]
    label_ids: tuple[int, ...]


def builtin_cases(tokenizer: Tokenizer, template: ChatTemplate) -> list[AgreementCase]:
    """The built-in texts as prompts of this model."""
    cases: list[AgreementCase] = []
    for instruction, labels, texts in _PROMPTS:
        label_ids = tuple(dict.fromkeys(tokenizer.tokenize(label, control=False)[0] for label in labels))
        if len(label_ids) < 2:  # a tokenizer that begins every label alike: compare their last tokens
            label_ids = tuple(dict.fromkeys(tokenizer.tokenize(label, control=False)[-1] for label in labels))
        system = Message(role="system", content=(Segment(text=instruction, trusted=True),))
        for text in texts:
            user = Message(role="user", content=(Segment(text=text, trusted=False),))
            segments = template.render([system, user])
            ids = [one for part in segments for one in tokenizer.tokenize(part.text, control=part.trusted)]
            cases.append(AgreementCase(input_ids=tuple(ids), label_ids=label_ids))
    return cases


def score_cases(backend: Backend, cases: Sequence[AgreementCase]) -> list[FloatArray]:
    """Logits of each case's labels, computed by a backend."""
    sequences = [backend.fork() for _ in cases]
    outputs = backend.extend(
        [
            Chunk(sequence=sequence, input_ids=case.input_ids, wanted="token_logits", token_ids=case.label_ids)
            for sequence, case in zip(sequences, cases, strict=True)
        ]
    )
    for sequence in sequences:
        backend.free(sequence)
    return [output for output in outputs if output is not None]


def compare_labels(
    expected: Sequence[FloatArray], found: Sequence[FloatArray], max_allowed_error: float
) -> AgreementReport:
    """Compare label logits of FP32 and of the compiled graph, case by case."""
    errors: list[FloatArray] = []
    same: list[bool] = []
    decided: list[bool] = []
    for reference, logits in zip(expected, found, strict=True):
        reference_logprobs, logprobs = log_softmax(reference), log_softmax(logits)
        errors.append(np.abs(reference_logprobs - logprobs))
        same.append(int(reference.argmax()) == int(logits.argmax()))
        second, first = np.sort(reference_logprobs)[-2:]
        decided.append(float(first - second) > MIN_MARGIN)
    decided_same = [is_same for is_same, is_decided in zip(same, decided, strict=True) if is_decided]
    return AgreementReport(
        num_texts=len(same),
        label_agreement=sum(same) / len(same),
        decided_agreement=sum(decided_same) / len(decided_same) if decided_same else 1.0,
        min_margin=MIN_MARGIN,
        mean_logprob_error=float(np.concatenate(errors).mean()),
        max_logprob_error=float(np.concatenate(errors).max()),
        max_allowed_error=max_allowed_error,
    )


def log_softmax(logits: FloatArray) -> FloatArray:
    """Log-probabilities over these labels, in nats."""
    shifted = logits - logits.max()
    return shifted - np.log(np.exp(shifted).sum())
