"""Sentence frames for what is so, what comes about and what is felt; frames_deeds.py says how they are written."""

VIEWS = {
    "season": """
        it was {a_weather} {part} in {month}.
        it was {a_weather} {season}.
        it was {month}, and the days were {weather} and {sky}.
        it was {a_weather}, {sky} {part} in {month}.
        {month} began, {weather} and {sky}.
        one {weather} {part} in {month}, everybody was busy.
        {season} had come, and it was {weather}.
        the {season} was {weather} that year.
    """,
    "setting": """
        it was a quiet {part}.
        it was <a kind_day> {part}.
        nobody was in a hurry.
        somewhere, <a noise> could be heard.
        everybody was busy.
        it was a day like any other.
        outside, <a bird> was singing in <a tree>.
        the clock struck <hour>.
        it smelled of <food> and <food>.
        it was <number> minutes past <hour>.
        somebody was baking <dish>.
        far away, <a noise> could be heard.
        it was market day, and everybody was buying <food>.
    """,
    "aside": """
        {who} {was} <happy>.
        {who} {was} <sad>.
        {who} {was} <tired> and <sad>.
        {who} thought about <subject> and <subject>.
        {who} whistled <sweetly>.
        {who} smiled <slowly>.
        {who} said nothing.
        {who} hummed <sweetly>.
        {who} had not slept well.
        {who} heard <a noise> and looked up.
        {who} thought of {his} <relative>, the <job>.
        {who} wanted to see <subject> one day.
        {who} had a sore <body>.
        {who} had eaten nothing but <food>.
        {who} looked at <a bird> in <a tree>.
        {who} wore <a colour> <clothes>.
        {who} had forgotten {his} <colour> <clothes>.
        {who} {was} <tired>, but <happy>.
        {who} dreamt of <dish> and <drink>.
        {who} liked <drink> and <food>.
        {who} did not like <drink>.
        {who} {was} afraid of <subject>.
        {who} knew <number> songs about <subject>.
        {who} counted to <number> in a whisper.
        {who} yawned and looked at the <colour> sky.
        {who} wiped {his} <body>.
        {who} scratched {his} <body> <slowly>.
        {who} had lost <a look> <hard> on <day>.
        {who} thought of <elder>, {his} <kind> <cousin>.
        {who} wanted to buy <a look> <hard> for <elder>.
        in {his} pocket {who} had <a look> <small> and <number> <fruit>.
        {who} had dreamt of <a kind> <animal> with <a look> <small>.
        {who} remembered the <kind> <job> and the <look> <hard>.
        {who} had seen <a kind> <job> chase <a animal> on <day>.
        {who} owed <elder> <number> <fruit>.
        {who} hummed a song about <a kind> <animal> and <a kind> <job>.
        on <day>, {who} had drunk <drink> with <elder>.
        <elder>, {his} <cousin>, had taught {him} <work> and <work>.
        {who} wondered whether <elder> liked <dish>.
        {who} felt <sad> and thought of <food>, <food> and <drink>.
    """,
    "character": """
        {who} was <a kind> <job>.
        {who} was <kind>, but sometimes <unkind>.
        {who} was <a kind> cousin of <a job>.
        {who} lived with {his} <relative> and <a animal>.
        {who} had <a colour> <clothes> and <number> <birds>.
        {who} knew everything about <subject>.
        {who} was known as <a kind> <job>.
        {who} wanted to be <a job> like {his} <relative>.
        once there was <a kind> <job> called {name}.
        {who} came from a family of <kind> <job>s.
        everybody liked {name}, for {he} {was} <kind> and <kind>.
        {who} loved <subject> and <dish>.
        {who} was <a kind> <job> and had learned from <elder>, <a kind> <job>.
        {who} collected <fruit> and had <a look> <hard>.
        {who} had <a kind> <animal>, <a look> <small> and <number> <fruit>.
        {who} was <kind>, but could be <unkind> on <day>s.
        {who} lived with <elder>, <a kind> <job>.
    """,
    "bond": """
        {who} were old friends.
        {who} were neighbours.
        {who} had known each other for <number> years.
        {who} both loved <subject>.
        {who} liked to play <game> together.
        {who} had not met for <number> weeks.
    """,
    "are_at": """
        {who} {was} in {place}.
        that {part}, {who} {was} in {place}.
        early that {part}, {who} sat in {place}.
        {who} sat in {place} and thought about <subject>.
        {who} had come to {place} early.
        {who} {was} in {place}, busy with <work> and <work>.
        {who} had come to {place} for some <work>.
        in {place}, {who} had to finish some <work>.
        {who} played <game> in {place}.
    """,
    "holds": """
        {who} had {thing:a}.
        {who} {was} holding {thing:a}.
        {who} carried {thing:a} in {his} hands.
        {who} had brought {thing:a}.
        {who} showed everyone {thing:a}.
        {who} had got {thing:a} from {his} <relative>.
        {who} had bought {thing:a} from <a kind> <job>.
        {who} had won {thing:a} at <game>.
        {who} had found {thing:a} under <a tree>.
    """,
    "needs": """
        {who} needed {thing:a}.
        {who} wanted {thing:full} back.
        {who} {was} thinking of {thing:full}.
        {who} had promised to show {his} <relative> {thing:a}.
        {who} could do nothing without {thing:full}.
    """,
    "needs_because": """
        it belonged to {his} <relative>, <a kind> <job>.
        {who} wanted to give it to {his} <relative>.
        {who} needed it for <work>.
        without it, there could be no <work>.
    """,
    "meets": """
        there {he} met {other}.
        {other} was there already.
        {who} found {other} there, <a kind> <job>.
        there {he} met <kind> {other}, who was eating <food>.
        {other}, <a kind> <job>, was there with <elder>.
        there stood {other} in <a colour> <clothes>.
        {other} was there, busy with <work>.
        {who} <slowly> greeted {other}.
        "Good {part}, {other}," {who} said.
    """,
    "meets_seller": """
        {other} was selling all kinds of things there.
        there {he} met {other}, who had things to sell.
        {other} sold <food>, <food> and many other things.
        "Come and buy!" called {other}.
    """,
    "prefers": """
        {who} would rather have had {thing}.
        {who} kept looking at {thing}.
        {who} liked {thing} much better.
        {who} had always wanted <a good> {thing:noun}.
    """,
    "owns_now": """
        now {thing} belonged to {name}.
        at last {who} had {thing}.
        "At last {thing} is mine," {who} said.
    """,
    "birthday": """
        it was {name}'s birthday.
        {who} was going to be <number> years old.
        {who} had a birthday.
    """,
    "wants_to_give": """
        {who} wanted to give {other} something <good>.
        "What would {other} like?" {who} thought.
        {who} did not have a present for {other} yet.
        {who} looked for a present for {other}.
    """,
    "sees": """
        {who} saw {thing:a}.
        {who} liked {thing:a} that stood between the <food> and the <food>.
        among many things {he} saw {thing:a}.
    """,
    "meanwhile": """
        {who} stayed behind.
        while {other} was away, {who} had time for <work>.
        {other} did not see what {who} did then.
        {who} waited until {other} was gone.
        {other} was gone, and {who} {was} alone.
    """,
    "looks_in_vain": """
        {who} looked {where}, but {thing} was not there.
        {who} looked for {thing} {where}, but it was gone.
        {thing} was no longer {where}.
        {who} thought that {thing} was {where}, but it was not.
    """,
    "lost": """
        {who} had lost {thing:a}.
        {who} could not find {thing:full}.
        {who} missed {thing:full}.
        {who} noticed that {thing:full} was gone.
    """,
    "not_here": """
        {thing} was not {where}.
        {who} looked everywhere {where}, but {thing} was not there.
        {who} could not find {thing} {where}.
        there were <number> <birds> {where}, but no {thing:noun}.
        {who} found only <a thing> there.
    """,
    "has_idea": """
        {who} had an idea.
        {who} thought hard and remembered something.
        {who} sat down and thought <slowly>.
    """,
    "wants_safe": """
        {who} wanted to keep {thing} safe.
        {who} did not want to lose {thing}.
        nobody was to find {thing}.
        "I must not lose {thing}," {who} said.
    """,
    "promise_kept": """
        {who} had kept {his} word.
        that was what {who} had promised.
        "A promise is a promise," {who} said.
    """,
    "next_day": """
        the next {part}, the sun was shining.
        the next day came.
        <number> days passed.
        a week passed.
        the night was <kind_day>, and then it was morning.
        the next {part} it was <kind_day>.
    """,
    "plans_dish": """
        {who} wanted to make {dish}.
        "Let us make {dish}!" {who} said.
        there was to be {dish} for supper.
        {who} had promised to make {dish}.
    """,
    "needs_food": """
        {who} had {first} and {second} on the table.
        {who} had {first} and {second} already.
        for that one needs {first} and {second}.
        {who} had bought {first} and {second}.
    """,
    "storm_comes": """
        a storm came up.
        dark clouds came, and it began to rain.
        the wind grew stronger and stronger.
        there was thunder, and <a animal> ran for its life.
        it began to <pour>.
        lightning struck <a tree>.
        the sky turned black.
    """,
    "blown_away": """
        the wind tore {thing} from {other} and carried it off.
        {thing} flew away.
        a gust of wind took {thing}.
        {thing} was blown away.
    """,
    "storm_ends": """
        after <number> hours the sun came out.
        the rain stopped.
        at <hour> o'clock it was over.
        the clouds went away, and <a bird> sang.
        the storm passed.
    """,
    "wants_to_travel": """
        {who} wanted to visit {other} in {place}.
        {other} lived in {place}, far away, and had invited {name}.
        a letter came: {name} was to visit {other} in {place}.
        {who} had not seen {other}, who lived in {place}, for <number> years.
    """,
    "has_coins": """
        {who} had {n} coins.
        {who} counted {n} coins.
        {who} had {n} coins in {his} pocket.
        {who} had saved {n} coins.
    """,
    "coins_left": """
        {who} had {n} coins left.
        {n} coins were left.
        now {who} had only {n} coins.
        {who} counted again: {n} coins were left.
    """,
    "on_sale": """
        there was {thing:a}, and beside it {second:a}.
        on the table lay {thing:a} and {second:a}.
        one could buy {thing:a} or {second:a}.
    """,
    "too_dear": """
        {thing} was too dear for {name}.
        {who} did not want {thing}.
        {who} did not even look at {thing}.
    """,
    "teaches": """
        {who} talked about {topic}.
        {who} was teaching the others about {topic}.
        the lesson was about {topic}, and {who} was the teacher.
        {who} had brought a book about {topic}.
    """,
    "forgot": """
        {who} had forgotten {his} {thing:noun}.
        {who} could not find {his} {thing:noun}.
        {who} had no {thing:noun}.
        "Where is my {thing:noun}?" {who} asked.
    """,
    "lesson_ends": """
        at <hour> o'clock the lesson was over.
        the bell rang.
        the lesson ended with a song about <subject>.
        after <number> questions it was enough.
    """,
    "has_pet": """
        {owner} had {a_animal} called {name}.
        with {owner} lived {a_animal} called {name}.
        {owner} loved {name}, {a_animal}.
        {who} was {a_animal} and belonged to {owner}.
    """,
    "pet_habit": """
        {who} loved <food>.
        {who} was afraid of <subject>.
        {who} was <kind>, but sometimes <unkind>.
        {who} slept most of the day.
        {who} liked to bite the <relative> of the <job>.
    """,
    "weeks_pass": """
        <number> weeks passed.
        it rained, and the sun shone.
        for a long time nothing could be seen.
        the days grew longer.
        <a bird> came every {part} to look.
    """,
    "grows": """
        the {crop} grew <slowly>.
        there were {crop} everywhere.
        at last the {crop} were ripe.
        nobody had ever seen such <good> {crop}.
    """,
    "keeps_some": """
        {who} kept {n} for {self}.
        {who} still had {n}.
        {n} {crop} were left for {name}.
    """,
    "race_starts": """
        "One, two, three!" and off they ran.
        they stood in a row and began to run.
        <a job> gave the sign, and they ran.
        all of them ran to {place} as fast as they could.
    """,
    "show_plan": """
        {who} wanted to make music for everyone.
        {who} were going to sing and play.
        {who} had practised for <number> weeks.
        {who} had written a song about <subject>.
    """,
    "misses": """
        {who} wanted to see {other}.
        {who} had something to tell {other}.
        {who} missed {other}.
        {who} was looking for {other}.
        {who} had to ask {other} about <subject>.
    """,
    "person_not_here": """
        {other} was not in {place}.
        but {other} was not there.
        {who} could not see {other} there.
        nobody there had seen {other} come in.
    """,
    "busy_with": """
        {who} {was} busy with <work>.
        {who} {was} reading a book about <subject>.
        {who} sat under <a tree> and ate <food>.
        {who} {was} drawing <a animal>.
        {who} {was} asleep.
    """,
    "ends_well": """
        {who} {was} <happy>.
        {who} {was} <happy> again.
        {who} {was} <tired>, but <happy>.
        {who} laughed, and all was well.
        {who} sat down and ate some <food>.
        that {part}, {who} had <dish>.
        {who} celebrated with <dish> and <drink>.
        in the end, {who} played <game>.
        {who} sang <sweetly>.
        {who} talked about it for <number> days.
        {who} wrote it down in <a colour> book.
        {who} had never been so <happy>.
        and {who} {was} <happy> for <number> days.
    """,
    "night": """
        {who} slept well that night.
        that night, {who} dreamt of <subject>.
        {who} went to bed early.
        then it was time for bed.
        outside, <a noise> could be heard.
        soon the stars came out.
    """,
    "moral": """
        a friend is worth more than <number> coins.
        {who} told the story to <a job>.
        it had been <a good> day.
        who asks, learns.
        {who} never forgot that day.
        {who} learned to be more careful.
        and that was that.
        it is good to have friends.
    """,
    "pet_found": """
        {into:at} sat {who}.
        {who} sat {into:at}.
        {who} lay {into:at} and slept.
        {into:at} lay {who}, <tired> but well.
        {who} was {into:at}, wet and <tired>.
    """,
}
