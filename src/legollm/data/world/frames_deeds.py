"""Sentence frames for what happens: each of them that begins with {who} may also follow a time word.

One frame a line. {who} is the subject (a name, several names or a pronoun), with {he} {him} {his} {self} {was} to
agree; other slots come with the event. <went> is one word of that set in the lexicon, <a kind> one with its article.
The narrator writes the capital at the beginning.
"""

DEEDS = {
    "go": """
        {who} <went> to {place}.
        {who} <went> <slowly> to {place}.
        {who} <went> over to {place}.
        {who} made {his} way to {place}.
        {who} set off for {place}.
        {who} <slowly> <went> to {place}.
        {who} put on {his} <boots> and <went> to {place}.
        {who} left and <went> to {place}.
    """,
    "carry": """
        {who} carried {thing} to {place}.
        {who} <went> to {place} with {thing}.
        {who} took {thing} along to {place}.
        {who} <slowly> carried {thing} to {place}.
        {who} brought {thing} to {place}.
        {who} <went> <slowly> to {place}, and took {thing} along.
    """,
    "return": """
        {who} <went> back to {place}.
        {who} returned to {place}.
        {who} <slowly> <went> back to {place}.
        {who} came back to {place}, <tired> and <happy>.
        {who} <went> <slowly> back to {place}.
        {who} took the <kind_way> way back to {place}.
    """,
    "comes_in": """
        {who} came to {place}, too.
        {who} came in.
        {who} <slowly> came in.
        {who} arrived, <tired> and <happy>.
        {who} came by.
        {who} came to see what was going on.
        just then, {who} came to {place}.
        {who} <went> into {place}.
    """,
    "meet_in": """
        {who} met in {place}.
        {who} came to {place}.
        {who} met again in {place}.
        {who} both <went> to {place}.
    """,
    "take": """
        {who} picked up {thing}.
        {who} took {thing}.
        {who} <slowly> picked up {thing}.
        {who} reached for {thing}.
        {who} grabbed {thing}.
        {who} <slowly> took {thing}.
        {who} took {thing} in both hands.
        {who} held {thing} up to the light.
    """,
    "takes_out": """
        {who} took {thing} out of {into}.
        {who} opened {into} and took out {thing}.
        {who} <slowly> lifted {thing} out of {into}.
        {who} looked into {into} and pulled out {thing}.
    """,
    "unpacks": """
        {who} opened {into} and found {thing:full}.
        {who} opened {into} and took out {thing}.
        {who} <slowly> opened {into}, and there was {thing:full}.
        {who} pulled {thing} out of {into}.
        {who} unpacked {into}, and out came {thing:full}.
    """,
    "put": """
        {who} put {thing} {into:at}.
        {who} <slowly> put {thing} {into:at}.
        {who} laid {thing} {into:at}.
        {who} left {thing} {into:at}.
        {who} placed {thing} {into:at}.
        {who} hid {thing} {into:at}.
        {who} <slowly> laid {thing} {into:at}.
    """,
    "puts_back": """
        {who} put {thing} back into {into}.
        {who} <slowly> put {thing} back.
        {who} laid {thing} back into {into}.
        {who} closed {into} with {thing} inside.
    """,
    "moves": """
        {who} moved {thing} and put it {into:at}.
        {who} took {thing} and hid it {into:at}.
        {who} <slowly> picked up {thing} and laid it {into:at}.
        {who} needed room, so {he} put {thing} {into:at}.
        {who} tidied up and put {thing} {into:at}.
        {who} played a trick and hid {thing} {into:at}.
    """,
    "packs": """
        {who} packed {thing:a} {into:at_a}.
        {who} put {thing:a} {into:at_a}.
        {who} took {into:a} and put {thing:a} in it.
        {who} <slowly> packed {thing:a} {into:at_a}.
    """,
    "packs_too": """
        {who} packed some <food> and some <food>, too.
        {who} took <food> for the way.
        {who} could hardly close {into}.
        {who} forgot to take {his} <boots>.
        {who} put {his} <boots> on top.
    """,
    "give": """
        {who} gave {thing} to {other}.
        {who} handed {thing} to {other}.
        {who} <slowly> gave {thing} to {other}.
        {who} passed {thing} to {other}.
        {who} <slowly> handed {thing:full} to {other}.
        {who} held out {thing}, and {other} took it.
    """,
    "lends": """
        {who} lent {thing} to {other}.
        {who} <slowly> handed {thing} to {other}.
        {who} let {other} have {thing} for a day.
        {who} gave {thing} to {other} for the time being.
    """,
    "lends_a": """
        {who} lent {other} {thing:a}.
        {who} had {thing:a} to spare and gave it to {other}.
        {who} <slowly> passed {other} {thing:a}.
        {who} pushed {thing:a} across to {other}.
    """,
    "gives_back": """
        {who} gave {thing} back to {other}.
        {who} <slowly> gave {thing} back to {other}.
        {who} handed {thing} back to {other}.
        {who} returned {thing} to {other}.
        "Here is your {thing:noun}, {other}," {who} said.
    """,
    "gives_parcel": """
        "This is for you, {other}," {who} said, and pointed at {into}.
        {who} showed {other} {into}.
        {who} <slowly> led {other} to {into}.
        "Open {into}, {other}!" {who} said.
    """,
    "buys": """
        {who} bought {thing} for {price} coins.
        {who} paid {price} coins and took {thing}.
        {who} <slowly> counted out {price} coins for {thing}.
        {who} gave the <kind_trader> {price} coins for {thing}.
    """,
    "wraps": """
        {who} tied <a colour> ribbon around {into}.
        {who} wrapped {into} in <colour> paper.
        {who} wrote a card and laid it beside {into}.
    """,
    "searches": """
        {who} looked for {thing} everywhere.
        {who} searched <slowly>.
        {who} looked high and low.
        {who} looked into every corner.
        {who} had to look for a long time.
    """,
    "finds": """
        {who} found {thing} {into:at}.
        {into:at} {who} found {thing}.
        {who} looked {into:at}, and there was {thing}!
        there was {thing}, {into:at}!
        {who} <slowly> looked {into:at} and saw {thing}.
        {who} saw {thing} at once: it lay {into:at}.
    """,
    "breaks": """
        {who} dropped {thing}, and it broke.
        {who} stumbled over <a animal>, and {thing} broke.
        {who} used {thing} once too often, and it broke.
        {who} sat down on {thing} by mistake, and it broke.
        {who} leant against a wall, and {thing} fell and broke.
        {who} shut the door too hard, and {thing} fell and broke.
    """,
    "mends": """
        {who} mended {thing} with <tool> and <tool>.
        {who} <slowly> mended {thing}.
        {who} took out <tool> and repaired {thing}.
        {who} worked on {thing} until it was as good as new.
        {who} needed only some <tool> to mend {thing}.
    """,
    "fetches_food": """
        {who} found the {third} {into:at}.
        {who} took the {third} out of {into}.
        {who} opened {into} and took the {third}.
        {who} <slowly> took some {third} from {into}.
    """,
    "cooks": """
        {who} cooked <slowly>.
        {who} chopped, stirred and tasted.
        {who} worked for an hour, and it smelled <tasty>.
        {who} <slowly> stirred the pot.
        {who} added <spice> and <spice>.
        {who} put in a little too much <spice>.
        {who} sang while the pot boiled.
    """,
    "serves": """
        {who} gave {other} a big plate of {dish}.
        {who} filled <a colour> bowl with {dish} for {other}.
        {who} put the {dish} on the table.
        {who} <slowly> served {other} the {dish}.
        "Sit down, {other}, there is {dish}," {who} said.
    """,
    "likes_dish": """
        {who} tasted the {dish}, and it was <tasty>.
        "This {dish} is <tasty>!" {who} said.
        {who} ate every last bit of the {dish}.
        {who} liked the {dish} very much.
        {who} <slowly> emptied the plate.
        {who} had never eaten such <tasty> {dish}.
    """,
    "dislikes": """
        {who} did not like the {dish} at all.
        {who} tried the {dish}, but did not want any more.
        "I am sorry, but I never eat {dish}," {who} said.
        {who} left the {dish} and ate some <food> instead.
    """,
    "more": """
        {who} asked for more.
        {who} wanted to know what was in it.
        {who} wanted <drink>, too.
        {who} drank a glass of <drink> with it.
        {who} asked for the recipe.
    """,
    "take_shelter": """
        {who} <went> to {place} to stay dry.
        {who} ran for {place}.
        {who} took shelter in {place}.
        {who} reached {place}, wet and <tired>.
    """,
    "quarrel": """
        {who} quarrelled about {thing}.
        {who} both pulled at {thing}.
        {who} shouted at each other.
        {who} argued <slowly> about {thing}.
        {who} began to quarrel, and <a animal> ran away.
    """,
    "make_peace": """
        {who} shook hands.
        {who} looked at each other and laughed.
        {who} made peace.
        {who} were friends again.
        {who} said sorry to each other.
    """,
    "departs": """
        {who} went by {vehicle}.
        {who} took the {vehicle}.
        {who} left early, by {vehicle}.
        {who} set out by {vehicle} at <hour> o'clock.
        {who} waved to {his} <relative> and set out by {vehicle}.
    """,
    "passes": """
        {who} came to {place}.
        {who} passed through {place}.
        {who} rested in {place} for an hour.
        {who} <slowly> crossed {place}.
        {who} stopped in {place} to eat some <food>.
    """,
    "sight": """
        {who} saw <a animal> and <number> <birds>.
        {who} watched <a animal> chase <a animal>.
        {who} counted <number> <birds> on a roof.
        {who} listened to <a bird> in <a tree>.
        {who} drew a picture of <a tree>.
        {who} met <a kind> <job> who talked about <subject>.
        {who} shared some <food> with <a kind> <job>.
        {who} picked a bunch of <crop>.
        {who} sat down under <a tree> and ate some <food>.
        {who} asked <a job> the way.
        {who} sent a postcard to {his} <relative>.
        {who} bought <a look> <hard> for <elder>.
        {who} saw <number> <birds>, <a animal> and <a look> <hard>.
        {who} lost <a look> <small>.
        {who} met <elder>, <a kind> <job>, and talked about <subject>.
        {who} swapped <number> <fruit> for <a look> <small>.
    """,
    "arrives": """
        {who} arrived in {place}.
        {who} reached {place} at <hour> o'clock.
        {who} came to {place}, <tired> and <happy>.
        {who} <slowly> <went> into {place}.
    """,
    "sows": """
        {who} sowed {crop}.
        {who} planted {crop} in <number> rows.
        {who} dug the ground and planted {crop}.
        {who} <slowly> planted {crop}.
    """,
    "waters": """
        {who} watered the ground <slowly>.
        {who} fetched <number> buckets of water.
        {who} pulled out the weeds.
        {who} chased <a animal> away.
        {who} built a fence against <a animal>.
    """,
    "picks": """
        {who} picked {n} {crop}.
        {who} <slowly> picked {n} {crop}.
        {who} counted the {crop}: there were {n}.
        {who} filled a bucket with {n} {crop}.
    """,
    "gives_some": """
        {who} gave {given} of the {crop} to {other}.
        {who} <slowly> gave {other} {given} of the {crop}.
        {who} let {other} have {given} of the {crop}.
    """,
    "wins": """
        {who} was the first to reach {place}.
        {who} came to {place} first.
        {who} was in {place} before anyone else.
        {who} won and sat down in {place}.
    """,
    "second": """
        {who} came second.
        {who} arrived right behind {other}.
        {who} was next to reach {place}.
        {who} came to {place} after {other}.
    """,
    "last": """
        {who} came last.
        {who} was the last to reach {place}.
        {who} <went> into {place} last of all.
    """,
    "race_trouble": """
        {who} stumbled over <a thing>.
        {who} lost a shoe on the way.
        {who} stopped to look at <a animal>.
        {who} took the wrong path.
        {who} fell and hurt {his} <body>.
    """,
    "plays": """
        {who} played {thing} <sweetly>.
        {who} took {thing} and began to play.
        {who} played a song about <subject>.
        {who} <slowly> played <number> songs.
    """,
    "sings": """
        {who} sang <sweetly>.
        {who} danced <slowly>.
        {who} sang a song about <subject>.
        {who} forgot the words and hummed.
    """,
    "applauds": """
        {who} clapped <slowly>.
        "How <good>!" {who} called.
        {who} threw <colour> flowers.
        {who} asked for one more song.
        {who} had never heard {thing} before.
    """,
    "runs_off": """
        {who} ran off to {place}.
        {who} slipped out and <went> to {place}.
        {who} saw <a animal> and chased it to {place}.
        {who} <slowly> crept out and ran to {place}.
        {who} followed a smell of <food> to {place}.
    """,
    "calls_pet": """
        "{other}!" {who} called, but nothing moved.
        {who} called {other}, but there was no answer.
        {who} looked for {other} everywhere.
        {who} <slowly> called {other}.
        {who} noticed that {other} was gone.
    """,
    "feeds": """
        {who} gave {other} some <food>.
        {who} stroked {other} <slowly>.
        {who} took {other} in {his} arms.
        {who} called {other} a silly thing.
    """,
    "writes": """
        {who} wrote about {topic}.
        {who} took {thing} and wrote <slowly>.
        {who} wrote <number> lines about {topic}.
        {who} used {thing} to draw <a animal>.
        {who} filled a whole page.
    """,
    "admires": """
        {who} turned {thing} over and over.
        {who} looked at {thing} <slowly>.
        "What <a good> {thing:noun}!" {who} said.
        {who} liked {thing} at once.
    """,
    "forgot_door": """
        {who} forgot to shut the door.
        {who} left the gate open.
        {who} looked away for a moment.
        {who} fell asleep over a book about <subject>.
        {who} talked to <a job> and forgot everything else.
    """,
}
