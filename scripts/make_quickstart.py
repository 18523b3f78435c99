#!/usr/bin/env python3
"""Write the quickstart data: short made-up customer reviews, labelled 0 (negative) or 1 (positive).

Every row is a sentence pattern filled with one topic's words. Training and validation rows use the SEEN
topics and patterns only; three quarters of the test rows use a HELD_OUT topic, a HELD_OUT pattern or both.
Words and patterns are this project's own writing, and the same seed always gives the same bytes.
"""

from __future__ import annotations

import argparse
import json
import random
from dataclasses import dataclass
from pathlib import Path

DEFAULT_OUT = Path(__file__).resolve().parents[1] / "llm_catalyst" / "tasks" / "quickstart"
DEFAULT_SEED = 2024
NEGATIVE, POSITIVE = 0, 1


@dataclass(frozen=True)
class Topic:
    """A kind of thing people review, as two tables with one row a line.

    `parts`: subject and verb | good adjectives | bad adjectives
    `endings`: a clause that says it went well | one that says it went badly (mostly with no such adjective)
    """

    parts: str
    endings: str


SEEN_TOPICS = {
    "hotel": Topic(
        parts="""
        the room was   | comfortable, spacious, charming | noisy, grubby, cramped
        the bed was    | comfortable, perfect, lovely    | lumpy, creaky, awful
        the staff were | friendly, attentive, kind       | rude, dismissive, grumpy
        breakfast was  | fresh, delicious, tasty         | stale, bland, horrible
        """,
        endings="""
        we have already booked again for June        | we left two days early
        I slept like a baby                          | I could not sleep for the noise
        we extended our stay by two days             | we asked for our money back
        I would stay there again tomorrow            | I would never stay there again
        next year we are bringing the whole family   | I ended up sleeping in the car
        my sister wants to spend her honeymoon there | we spent the last night at my sister's flat instead
        """,
    ),
    "restaurant": Topic(
        parts="""
        the soup was        | tasty, rich, delicious    | bland, watery, awful
        the waiter was      | polite, charming, helpful | impatient, grumpy, careless
        the portions were   | generous, filling, hearty | tiny, pitiful, disappointing
        the dining room was | lovely, calm, inviting    | gloomy, dirty, shabby
        """,
        endings="""
        I asked the chef for the recipe             | we sent most of it back to the kitchen
        we are going back on Friday                 | two of us were ill the next morning
        my father left a very large tip             | my father refused to leave a tip
        we stayed for a second dessert              | we walked out before the main course
        I have told all my friends to go there      | I would not send my worst enemy there
        it is now where we celebrate every birthday | I was still hungry when we got home
        """,
    ),
    "app": Topic(
        parts="""
        the search is        | fast, reliable, accurate      | slow, unreliable, useless
        the menus are        | clear, tidy, helpful          | confusing, annoying, ugly
        the latest update is | smooth, polished, stable      | broken, terrible, annoying
        the support team is  | responsive, competent, honest | evasive, clueless, unhelpful
        """,
        endings="""
        I now open it first thing every morning   | I uninstalled it within the hour
        it has run without a hitch since March    | it crashes every time I open it
        I paid for the full version straight away | I cancelled before the trial was over
        it saves me a whole day every week        | it lost a whole week of my notes
        my whole team has started using it        | my team has stopped using it
        everyone at work wants the app too        | I still cannot log in
        """,
    ),
    "headphones": Topic(
        parts="""
        the sound is     | crisp, warm, balanced       | muffled, harsh, horrible
        the headband is  | sturdy, pleasant, well made | broken, uncomfortable, badly made
        the battery is   | strong, powerful, solid     | weak, unreliable, useless
        the ear pads are | soft, comfortable, lovely   | itchy, unpleasant, painful
        """,
        endings="""
        I bought another pair for my brother         | the left side died after a week
        they still work like new after three winters | I sent them back the same evening
        I wear them from breakfast to bedtime        | they gave me a headache
        I can finally hear every note                | they fell apart in my hands
        they have made my bus ride fly by            | I could not hear a word of the call
        my brother keeps asking to borrow them       | I am still waiting for my refund
        """,
    ),
    "web shop": Topic(
        parts="""
        the delivery was  | quick, easy, prompt           | late, slow, delayed
        the packaging was | neat, strong, pretty          | torn, soggy, damaged
        the driver was    | courteous, cheerful, friendly | hostile, rude, careless
        the checkout was  | simple, easy, quick           | clunky, slow, frustrating
        """,
        endings="""
        the parcel arrived a day ahead of schedule  | the parcel never arrived
        every glass arrived in one piece            | half of the glasses were smashed
        I have ordered twice more since then        | I had to complain three times
        the box was brought right up to my door     | the box was left out in the rain
        I have given the link to all my neighbours  | I will not order from them again
        they even put a handwritten card in the box | they sent the wrong size three times
        """,
    ),
}

HELD_OUT_TOPICS = {
    "dentist": Topic(
        parts="""
        the dentist was      | gentle, reassuring, thorough      | clumsy, heartless, cold
        the waiting area was | restful, airy, nice               | overcrowded, filthy, nasty
        the receptionist was | welcoming, gracious, warm-hearted | condescending, arrogant, horrid
        """,
        endings="""
        I can finally smile in photographs          | I was in agony for a fortnight
        my daughter giggled the entire time         | the filling fell out on the bus
        I have sent three colleagues to this clinic | my daughter cried the entire time
        I would trust them with any tooth           | they drilled the wrong tooth
        """,
    ),
    "garage": Topic(
        parts="""
        the mechanic was | trustworthy, skilled, knowledgeable | dishonest, incompetent, lazy
        the repair was   | first-rate, speedy, professional    | botched, shoddy, dire
        the bill was     | fair, reasonable, affordable        | outrageous, inflated, misleading
        """,
        endings="""
        the engine has been purring ever since    | the engine was smoking by Sunday
        the brakes feel as good as new            | the brakes squeal worse than before
        they even polished a scratch for free     | they charged me for parts I never got
        the van carried us safely across the Alps | the van broke down on the motorway
        """,
    ),
    "course": Topic(
        parts="""
        the teacher was  | inspiring, encouraging, wise | boring, disorganised, unkind
        the lessons were | engaging, lively, enjoyable  | dull, pointless, tiresome
        the textbook was | superb, insightful, valuable | outdated, impenetrable, dreadful
        """,
        endings="""
        the whole class enrolled for the next level | half the class had dropped out by Easter
        I can now chat with my Spanish in-laws      | I still cannot order a coffee in Spanish
        I passed the exam with top marks            | I failed the exam
        the evenings just flew by                   | I fell asleep at my desk
        """,
    ),
    "tour": Topic(
        parts="""
        the guide was   | entertaining, brilliant, passionate | monotonous, obnoxious, uninterested
        the boat was    | luxurious, splendid, immaculate     | rusty, unsafe, smelly
        the scenery was | breathtaking, gorgeous, magnificent | bleak, hideous, depressing
        """,
        endings="""
        we signed up for the evening trip as well | the children begged to get off
        the passengers burst into applause        | most passengers were seasick
        whales came right up to us                | we never saw a single whale
        the children sang all the way home        | we were stranded on the pier for hours
        """,
    ),
    "gym": Topic(
        parts="""
        the trainer was   | motivating, supportive, fantastic | hopeless, mean, intimidating
        the machines were | modern, excellent, gleaming       | faulty, decrepit, dangerous
        the showers were  | refreshing, wonderful, sparkling  | mouldy, freezing, disgusting
        """,
        endings="""
        I ran my first marathon this spring          | I injured my knee in the first session
        I have extended my membership to next winter | my back hurts more than ever
        I feel ten years younger                     | I have cancelled my membership
        I now look forward to Mondays                | I had to queue for every treadmill
        """,
    ),
}

# {part} and {be} are a subject and its verb; {same} is an adjective that agrees with the row's label, {other}
# one that goes against it; {ending} is a clause that agrees with the label.
SEEN_PATTERNS = (
    "{part} {be} really {same}.",
    "I must say that {part} {be} {same}.",
    "we all agreed that {part} {be} {same}.",
    "compared with last time, {part} {be} {same}.",
    "{part} {be} every bit as {same} as the other reviews say.",
    "{part} {be} {same}, and {ending}.",
    "{ending}, and {part} {be} {same}.",
    "{ending}.",
    "long story short, {ending}.",
    "{part} {be} {same}, not {other}.",
    "I would not call {part} {other}.",
    "{part} {be} not at all {other}.",
    "{part} {be} far less {other} than I had expected.",
    "{part} {be} {other}, but {ending}.",
    "although {part} {be} {other}, {ending}.",
    "{ending}, even though {part} {be} {other}.",
)
HELD_OUT_PATTERNS = (
    "there is only one word for {part}: {same}.",
    "how {same} {part} {be}!",
    "everyone in our group found {part} {same}.",
    "if you ask me, {part} {be} {same}.",
    "{part} {be} {same}; what is more, {ending}.",
    "what can I tell you? {ending}.",
    "let me put it this way: {ending}.",
    "nobody could call {part} {other}.",
    "{part} {be} not in the least {other}, and {ending}.",
    "while {part} {be} {other}, {ending}.",
    "yes, {part} {be} {other}; all the same, {ending}.",
    "{part} {be} {other}, and yet {ending}.",
)

Pools = tuple[tuple[dict[str, Topic], tuple[str, ...]], ...]
SEEN = (SEEN_TOPICS, SEEN_PATTERNS)
TEST_POOLS: Pools = (
    SEEN,
    (SEEN_TOPICS, HELD_OUT_PATTERNS),
    (HELD_OUT_TOPICS, SEEN_PATTERNS),
    (HELD_OUT_TOPICS, HELD_OUT_PATTERNS),
)
# Split -> its number of rows and the (topics, patterns) pools that share them equally.
SPLITS: dict[str, tuple[int, Pools]] = {
    "train": (240, (SEEN,)),
    "validation": (160, (SEEN,)),
    "test": (400, TEST_POOLS),
}


def pick_row(table: str, rng: random.Random) -> list[str]:
    """The cells of one row of a topic's table."""
    rows = [line for line in table.splitlines() if line.strip()]
    return [cell.strip() for cell in rng.choice(rows).split("|")]


def capitalise(text: str) -> str:
    """The text with a capital letter at its start and after a question mark."""
    return "? ".join(sentence[0].upper() + sentence[1:] for sentence in text.split("? "))


def make_text(topic: Topic, pattern: str, label: int, rng: random.Random) -> str:
    """A sentence with the given label: the pattern filled with words drawn from the topic."""
    subject, *adjectives = pick_row(topic.parts, rng)
    endings = pick_row(topic.endings, rng)
    if label == NEGATIVE:
        adjectives.reverse()
        endings.reverse()
    part, be = subject.rsplit(" ", 1)
    same, other = (rng.choice(words.split(", ")) for words in adjectives)
    return capitalise(pattern.format(part=part, be=be, same=same, other=other, ending=endings[0]))


def make_rows(count: int, pools: Pools, used: set[str], rng: random.Random) -> list[dict[str, str | int]]:
    """A split's rows in random order: pools, labels and patterns in equal shares, no text from `used`.

    The new texts are added to `used`.
    """
    rows: list[dict[str, str | int]] = []
    for topics, patterns in pools:
        for turn in range(count // len(pools)):
            label = turn % 2
            pattern = patterns[turn // 2 % len(patterns)]
            text = make_text(rng.choice(list(topics.values())), pattern, label, rng)
            while text in used:
                text = make_text(rng.choice(list(topics.values())), pattern, label, rng)
            used.add(text)
            rows.append({"text": text, "label": label})
    rng.shuffle(rows)
    return [{**row, "idx": idx} for idx, row in enumerate(rows)]


def write_splits(out: Path, seed: int = DEFAULT_SEED) -> dict[str, Path]:
    """The files written into the folder `out`, by split name."""
    rng = random.Random(seed)
    used: set[str] = set()
    out.mkdir(parents=True, exist_ok=True)
    files = {}
    for split, (count, pools) in SPLITS.items():
        rows = make_rows(count, pools, used, rng)
        files[split] = out / f"{split}.jsonl"
        files[split].write_bytes("".join(json.dumps(row) + "\n" for row in rows).encode("ascii"))
    return files


def main(argv: list[str] | None = None) -> None:
    """Nothing: writes the three files and prints their paths."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT, help="folder to fill (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=DEFAULT_SEED, help="random seed (default: %(default)s)")
    args = parser.parse_args(argv)
    for split, path in write_splits(args.out, args.seed).items():
        print(f"{split}: {SPLITS[split][0]} rows in {path}")


if __name__ == "__main__":
    main()
