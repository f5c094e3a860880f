"""Sentence frames of the scenes that questions are asked about; frames_deeds.py says how they are written.

They are short, and those of the backdrop and of moods name nothing that could be an answer.
"""

FACTS = {
    "backdrop": """
        it was a quiet {part}.
        it was <a kind_day> {part}.
        nobody was in a hurry.
        somewhere, <a noise> could be heard.
        everybody was busy.
        it was a day like any other.
        outside, <a bird> was singing.
    """,
    "mood": """
        {who} {was} <happy>.
        {who} {was} <sad>.
        {who} {was} <tired>.
        {who} thought about <subject>.
        {who} whistled <sweetly>.
        {who} smiled <slowly>.
        {who} said nothing.
        {who} hummed <sweetly>.
        {who} had not slept well.
        {who} heard <a noise> and looked up.
        {who} had a sore <body>.
    """,
    "is_at": """
        {who} {was} in {place}.
        {who} sat in {place}.
        {who} {was} busy in {place}.
        {who} stood <slowly> in {place}.
        {who} waited in {place}.
        {who} played <game> in {place}.
        in {place}, {who} hummed a song.
        in {place}, {who} waited.
        in {place}, {who} played <game>.
        {who} {was} in {place}, busy with <work>.
    """,
    "lies": """
        {thing:a} lay {into:at}.
        there was {thing:a} {into:at}.
        {into:at} lay {thing:a}.
        somebody had left {thing:a} {into:at}.
        {into:at} there was {thing:a}.
    """,
    "works": """
        {who} {was} {a_job}.
        {who} worked as {a_job}.
        {who} had always wanted to be {a_job}, and now {he} {was} one.
        {who} {was} <a kind> {job}.
        {who} {was} known as the best {job} in town.
        people came from far away to see {name}, the {job}.
    """,
    "eats": """
        {who} ate {dish}.
        {who} had {dish}.
        {who} <slowly> ate {dish}.
        {who} asked for {dish} and ate it <slowly>.
        {who} could not wait to eat {dish}, and {he} did.
        {who} had {dish} with <drink>.
    """,
    "costs": """
        {thing} cost {price}.
        there was {thing:a} for {price}.
        for {price}, anybody could buy {thing:a}.
        the price of {thing} was {price}.
    """,
    "leaves": """
        {who} left for {place}.
        {who} went out to {place}.
        {who} went away to {place}.
    """,
    "comes_before": """
        {who} came before {other}.
        {who} arrived earlier than {other}.
        {who} was there before {other}.
        {who} was already waiting when {other} came.
    """,
    "comes_after": """
        {who} came after {other}.
        {who} arrived later than {other}.
        when {who} came, {other} was already there.
    """,
    "has_some": """
        {who} had {n} {fruit}.
        {who} had collected {n} {fruit}.
        {who} counted {n} {fruit}.
        in {his} basket, {name} had {n} {fruit}.
        {who} had got {n} {fruit} from {his} <relative>.
    """,
    "gives_fruit": """
        {who} gave {n} {fruit} to {other}.
        {who} <slowly> gave {other} {n} {fruit}.
        {who} handed {n} {fruit} to {other}.
    """,
    "one_of": """
        {who} had put {thing} {one}, {two} or {three}.
        {thing} was {one}, {two} or {three}.
        {who} knew that {thing} was {one}, {two} or {three}.
    """,
    "not_there": """
        {who} did not find {thing} {where}.
        {thing} was not {where}.
        {who} looked {where}, but {thing} was not there.
    """,
    "every": """
        every {job} needed {thing:a_noun}.
        no {job} could work without {thing:a_noun}.
        whoever worked as {a_job} needed {thing:a_noun}.
    """,
    "go_on_day": """
        {day}, {who} <went> to {place}.
        {who} <went> to {place} {day}.
        {day}, {who} set off for {place}.
        {day}, {who} <slowly> <went> to {place}.
    """,
}
