"""Sentence frames for what is so, what is felt, and what is said; frames_deeds.py says how they are written."""

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
    "is_at": """
        {who} {was} in {place}.
        {who} sat in {place}.
        {who} {was} busy in {place}.
        {who} stood <slowly> in {place}.
        {who} waited in {place}.
        {who} played <game> in {place}.
        in {place}, {who} hummed a song.
        {who} {was} in {place}, busy with <work>.
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
        for {price}, one could buy {thing:a}.
        the price of {thing} was {price}.
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
    "asks_to_fetch": """
        "{other}, could you get {thing} for me?" {who} asked. "It is in {place}."
        {who} asked {other} to fetch {thing} from {place}.
        "Please bring me {thing} from {place}," {who} said to {other}.
        "Would you go to {place}, {other}, and bring me {thing}?" {who} asked.
        {who} <slowly> asked {other} to go to {place} for {thing}.
    """,
    "agrees": """
        "Of course," {who} said.
        "Gladly!" {who} answered.
        {who} nodded <slowly>.
        {who} agreed at once.
        "If you like, {other}," {who} said.
        "What <a good> idea, {other}!" {who} said <slowly>.
        {who} had nothing against it.
        {who} thought about it and said yes.
    """,
    "refuses": """
        "No, {other}," {who} said. "My <relative> gave it to me."
        {who} shook {his} head <slowly>.
        "I would rather not, {other}," {who} answered.
        {who} did not want to.
    """,
    "accepts_no": """
        "Never mind," {who} said.
        {who} {was} <sad>, but said nothing.
        {who} could understand that.
        "Then let us play <game>, {other}," {who} said.
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
    "asks_where": """
        "Where is {thing}?" {who} asked.
        "Do you know where {thing} is?" {who} asked <slowly>.
        {who} asked where {thing} was.
        {who} asked {other} where {thing} was.
        "{other}, where is {thing}?" {who} asked.
        "I cannot see {thing}. Where is it?" {who} said.
    """,
    "answers_where": """
        "It is {where}," {who} said.
        "{Where}," {who} answered.
        {who} said that it was {where}.
        "You will find it {where}," {who} said <slowly>.
        "I saw it {where}," {who} replied.
    """,
    "answers_nested": """
        "It is in {into}, and {into} is in {outer}," {who} said.
        "In {into}, which is in {outer}," {who} answered.
        {who} said that it was in {into}, inside {outer}.
    """,
    "answers_have": """
        "I have it," {who} said.
        "Here it is," {who} answered.
        {who} said <slowly> that {he} had it.
    """,
    "answers_who": """
        "{other} has it," {who} said.
        {who} said that {other} had it.
        "I gave it to {other}," {who} answered <slowly>.
    """,
    "asks_where_person": """
        "Where is {missing}?" {who} asked.
        "{other}, where is {missing}?" {who} asked <slowly>.
        {who} asked {other} where {missing} was.
        "Have you seen {missing}?" {who} asked.
    """,
    "answers_where_person": """
        "{missing} is {where}," {who} said.
        "{Where}," {who} answered.
        {who} said that {missing} was {where}.
        "You will find {missing} {where}," {who} said <slowly>.
    """,
    "thanks": """
        "Thank you, {other}," {who} said.
        "Thank you," {who} said <slowly>, and gave {other} some <food>.
        {who} thanked {other} <slowly>.
        "That is <good> of you, {other}," {who} said.
        "You are <a kind> friend, {other}," {who} said.
        {who} {was} <happy> and thanked {other}.
    """,
    "prefers": """
        {who} would rather have had {thing}.
        {who} kept looking at {thing}.
        {who} liked {thing} much better.
        {who} had always wanted <a good> {thing:noun}.
    """,
    "offers_swap": """
        "Will you give me {second} for {thing}?" {who} asked {other}.
        {who} asked {other} to swap {second} for {thing}.
        "Let us swap, {other}: {thing} for {second}," {who} said.
        {who} <slowly> offered {other} {thing} for {second}.
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
    "asks_price": """
        "How much is {thing}?" {who} asked.
        {who} asked what {thing} cost.
        "What does {thing} cost?" {who} asked <slowly>.
    """,
    "says_price": """
        "For you, {price} coins," {who} said.
        "It costs {price} coins," {who} answered.
        {who} wanted {price} coins for it.
        {who} said that it cost {price} coins.
        "That makes {price} coins, because it is you," {who} said.
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
    "confesses": """
        "I put it {where}, {other}," {who} said.
        {who} laughed and told {other} that {thing} was {where}.
        "It is {where} now, {other}," {who} said <slowly>.
    """,
    "apologises": """
        "I am sorry, {other}," {who} said.
        {who} said that {he} {was} sorry.
        "I will never do it again, {other}," {who} said.
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
    "sees_trouble": """
        "What is the matter, {other}?" {who} asked.
        "You look <sad>, {other}," {who} said.
        {who} saw that {other} was <sad>.
    """,
    "tells_loss": """
        "I have lost {thing}," {who} said <slowly>.
        "{thing:The} is gone," {who} answered.
        {who} said that {thing} was gone.
    """,
    "hint": """
        "Did you look in {place}?" {who} asked.
        "Let us look in {place}," {who} said.
        "I think I saw {thing} in {place}," {who} said.
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
    "asks_to_borrow": """
        "May I borrow {thing}, {other}?" {who} asked.
        {who} asked {other} for {thing}.
        {who} wanted to borrow {thing} for <work>.
    """,
    "promises_back": """
        "You will have it back tomorrow, {other}," {who} said.
        {who} promised to bring {thing} back.
        {who} gave {other} {his} word to be careful.
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
    "asks_to_mend": """
        "Can you mend {thing}, {other}?" {who} asked.
        {who} asked {other} to mend {thing}.
        "My {thing:noun} is broken, {other}," {who} said <slowly>.
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
    "asks_food": """
        "Have you seen any {third}, {other}?" {who} asked.
        "We need {third}, too, {other}," {who} said.
        {who} asked {other} to find some {third}.
        {who} could not find any {third}.
    """,
    "answers_food": """
        "I saw some {into:at} in {place}," {who} said.
        {who} had seen some {into:at} in {place}.
        "Look {into:at} in {place}," {who} answered.
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
    "worries": """
        "{thing:The} is gone," {who} said.
        {who} {was} <sad> about {thing}.
        "Where may {thing} be now?" {who} asked.
        {who} could think only of {thing}.
    """,
    "comforts": """
        "We will find it, {other}," {who} said.
        {who} gave {other} some <food>.
        {who} told {other} a story about <subject>.
        {who} made {other} a cup of <drink>.
    """,
    "wants_too": """
        {who} wanted {thing}, too.
        "Give me {thing}!" {who} said.
        {who} said that {thing} was not for one alone.
        "It is my turn to have {thing}," {who} said.
    """,
    "insult": """
        "You are as <unkind> as <a animal>, {other}!" {who} shouted.
        "You are <unkind>, {other}!" {who} said.
        {who} called {other} <a animal>.
        "Go and live with <a job>, {other}!" {who} cried.
    """,
    "advice": """
        "One has it today, and one tomorrow," {who} said.
        {who} said that friends take turns.
        "Nobody should quarrel about <a thing>," {who} said.
        {who} told them a story about <subject>.
        "Share it," {who} said <slowly>.
    """,
    "promises_turn": """
        "You may have {thing} tomorrow, {other}," {who} said.
        {who} promised to give {other} {thing} soon.
        "It will be your turn next, {other}," {who} said.
    """,
    "wants_to_travel": """
        {who} wanted to visit {other} in {place}.
        {other} lived in {place}, far away, and had invited {name}.
        a letter came: {name} was to visit {other} in {place}.
        {who} had not seen {other}, who lived in {place}, for <number> years.
    """,
    "welcomes": """
        "Welcome, {other}!" {who} said.
        {who} ran to meet {other}.
        {who} had made <dish> for {other}.
        {who} {was} <happy> to see {other}.
        "How was the journey, {other}?" {who} asked.
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
    "question": """
        "What do you know about {topic}, {other}?" {who} asked.
        {who} asked {other} a question about {topic}.
        "{other}, can you tell us something about {topic}?" {who} asked.
    """,
    "knows_answer": """
        {who} knew the answer.
        {who} told {other} <number> things about {topic}.
        "My <relative> told me all about {topic}," {who} said.
        {who} could talk about {topic} for hours.
    """,
    "praise": """
        "That is <good>, {other}," {who} said.
        {who} praised {other}.
        {who} {was} <happy> with {other}.
        "Very <good>, {other}!" {who} said.
    """,
    "knows_not": """
        {who} did not know the answer.
        {who} knew nothing about {topic}, only about {second}.
        "I only know about {second}," {who} said.
        {who} had read the wrong page.
    """,
    "whispers": """
        {who} whispered the answer to {other}.
        {who} wanted to help {other}.
        {who} wrote the answer on {his} <body>.
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
    "doubts": """
        "Nothing will grow here, {other}," {who} said.
        {who} asked {other} how long it would take.
        "Are you sure, {other}?" {who} asked.
    """,
    "patience": """
        "Wait, {other}," {who} said.
        {who} told {other} to be patient.
        "It takes <number> weeks, {other}," {who} answered.
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
    "race_idea": """
        "Who is first in {place}?" {who} asked.
        {who} wanted to run a race to {place}.
        "I bet I am faster than all of you!" {who} said.
        "Let us run to {place}," {who} said.
    """,
    "race_starts": """
        "One, two, three!" and off they ran.
        they stood in a row and began to run.
        <a job> gave the sign, and they ran.
        all of them ran to {place} as fast as they could.
    """,
    "race_comment": """
        "Well done, {other}," {who} said.
        {who} shook hands with {other}.
        "You run like <a animal>, {other}!" {who} said.
        "Next time I will be first, {other}," {who} said.
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
    "invites": """
        "Come and eat <dish> with me, {other}!" {who} said.
        "Let us play <game>, {other}," {who} said.
        {who} asked {other} to play <game>.
        "Will you help me with some <work>, {other}?" {who} asked.
    """,
    "remark_topic": """
        "I read a book about <subject>, {other}," {who} said.
        "I know a lot about <subject> and <subject>," {who} said <slowly>.
        "I dreamt of <subject>, {other}," {who} said.
        {who} talked about <subject>.
        {who} told {other} a story about <subject>.
        "One day I will write a book about <subject>," {who} said.
        "<elder> and I are building <a look> <hard>," {who} said.
        "On <day>, <elder> lost <a look> <small>," {who} said.
        "I saw <a kind> <job> and <number> <birds>," {who} said <slowly>.
        {who} talked about <subject>, <subject> and <a look> <hard>.
    """,
    "reply_topic": """
        "I like <subject> better," {who} said.
        "I know nothing about that, {other}," {who} answered <slowly>.
        {who} listened <calmly>.
        "My <relative> talks of nothing else," {who} said.
        {who} would rather talk about <subject>.
        "I would rather hear about <subject>, {other}," {who} said.
    """,
    "remark_food": """
        "I could eat <dish> every day, {other}," {who} said.
        "There was <dish> for supper, and <dish>," {who} said.
        "I am hungry," {who} said <slowly>.
        {who} asked {other} how to make <dish>.
        "My <cousin> <elder> made <tasty> <dish> on <day>," {who} said.
        {who} could not stop talking about <dish>.
    """,
    "reply_food": """
        "I only eat <food>, {other}," {who} answered.
        "My <relative> makes <tasty> <dish>," {who} said.
        {who} gave {other} some <food>.
        {who} wanted some <drink> with it.
    """,
    "remark_family": """
        "My <relative> is <a job>, {other}," {who} said.
        "My <relative> has bought <a animal>," {who} said <slowly>.
        "My <relative> was stung by <number> bees," {who} said.
        "My <cousin> <elder> is <a kind> <job>," {who} said.
        "My <cousin> <elder> eats only <food> and <food>," {who} said.
        "My <cousin> <elder> has <number> <birds> and <a animal>," {who} said.
        {who} told {other} about <number> <kind> cousins.
        {who} said that {his} <relative> was <sad>.
    """,
    "reply_family": """
        "Mine is <a kind> <job>," {who} answered.
        "How <good>!" {who} said.
        "That is what your <relative> told me, {other}," {who} said.
        {who} could hardly believe it.
        {who} laughed <slowly>.
        "Mine would rather have <a animal>, {other}," {who} said.
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
