"""The demo's prompts: as many as asked for, no two alike."""

_SUBJECTS = (
    "a red fox asleep in the snow",
    "a lighthouse in a storm",
    "an old tram climbing a hill",
    "a café in 東京 after the rain",
    "a whale above the clouds",
    "a glass of tea on a windowsill",
    "a mountain hut under the milky way",
    "a market of lanterns",
    "a robot that repairs watches",
    "a ship in a bottle",
)
_STYLES = (
    "watercolour",
    "oil on canvas",
    "35 mm photograph",
    "woodcut",
    "pencil sketch",
    "art deco poster",
    "isometric render",
    "stained glass",
)


def make_prompts(count: int) -> list[str]:
    """Return `count` different prompts."""
    found = []
    for index in range(count):
        turn, subject = divmod(index, len(_SUBJECTS))
        variation, style = divmod(turn, len(_STYLES))
        prompt = f"{_SUBJECTS[subject]}, {_STYLES[style]}"
        found.append(f"{prompt}, variation {variation}" if variation else prompt)
    return found
