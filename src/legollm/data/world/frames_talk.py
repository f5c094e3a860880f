"""Sentence frames for what is asked, answered, promised and remarked; frames_deeds.py says how they are written."""

TALK = {
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
    "offers_swap": """
        "Will you give me {second} for {thing}?" {who} asked {other}.
        {who} asked {other} to swap {second} for {thing}.
        "Let us swap, {other}: {thing} for {second}," {who} said.
        {who} <slowly> offered {other} {thing} for {second}.
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
    "asks_to_mend": """
        "Can you mend {thing}, {other}?" {who} asked.
        {who} asked {other} to mend {thing}.
        "My {thing:noun} is broken, {other}," {who} said <slowly>.
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
    "welcomes": """
        "Welcome, {other}!" {who} said.
        {who} ran to meet {other}.
        {who} had made <dish> for {other}.
        {who} {was} <happy> to see {other}.
        "How was the journey, {other}?" {who} asked.
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
    "race_idea": """
        "Who is first in {place}?" {who} asked.
        {who} wanted to run a race to {place}.
        "I bet I am faster than all of you!" {who} said.
        "Let us run to {place}," {who} said.
    """,
    "race_comment": """
        "Well done, {other}," {who} said.
        {who} shook hands with {other}.
        "You run like <a animal>, {other}!" {who} said.
        "Next time I will be first, {other}," {who} said.
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
}
