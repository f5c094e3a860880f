"""Stories of what people do together, or alone."""

from legollm.data.world import cast
from legollm.data.world.beats import aside, chat, closing, maybe, opening, where_talk, whereabouts_talk
from legollm.data.world.draw import Draw
from legollm.data.world.lexicon import (
    ANIMALS,
    COUNTRY,
    CROPS,
    DISHES,
    FOODS,
    NUMBERS,
    PETS,
    ROOMS,
    SOFT,
    SUBJECTS,
    TOWN,
    VEHICLES,
    with_article,
)
from legollm.data.world.state import Person, World


def meal(draw: Draw, world: World) -> None:
    """Two people cook for a third."""
    cook, helper, guest = cast.people(draw, 3)
    home, away = cast.places(draw, 2, ROOMS)
    dish, (first, second, third) = draw.pick(DISHES), draw.sample(FOODS, 3)
    (box,) = cast.boxes(draw, 1)
    opening(draw, world, cook, helper, place=home)
    world.tell("plans_dish", cook, dish=dish)
    maybe(draw, world, 0.6, "needs_food", cook, first=first, second=second)
    world.tell("asks_food", cook, third=third, other=helper)
    world.tell("answers_food", helper, third=third, into=box, place=away)
    world.go(helper, place=away)
    world.tell("fetches_food", helper, third=third, into=box)
    world.go(helper, place=home, how="return")
    maybe(draw, world, 0.7, "cooks", cook, helper)
    aside(draw, world, helper)
    world.go(guest, place=home, how="comes_in")
    chat(draw, world, guest, cook)
    world.tell("serves", cook, other=guest, dish=dish)
    if draw.chance(0.2):
        world.tell("dislikes", guest, dish=dish)
    else:
        world.tell("likes_dish", guest, dish=dish)
        maybe(draw, world, 0.4, "more", guest)
    closing(draw, world, cook, helper, guest)


def storm(draw: Draw, world: World) -> None:
    """The weather turns, a thing is blown away, and is found when the sun is back."""
    one, two = cast.people(draw, 2)
    (outside,), (inside,) = cast.places(draw, 1, COUNTRY), cast.places(draw, 1, ROOMS + TOWN)
    (thing,), (spot,) = cast.things(draw, 1, SOFT), cast.spots(draw, 1, outside)
    world.at.update({thing: one, spot: outside})
    opening(draw, world, one, two, place=outside)
    world.tell("holds", one, thing=thing)
    chat(draw, world, one, two)
    world.tell("storm_comes")
    world.tell("blown_away", thing=thing, other=one)
    world.at[thing] = spot
    world.go(one, two, place=inside, how="take_shelter")
    aside(draw, world, two)
    if draw.chance(0.6):
        world.tell("worries", one, thing=thing)
        world.tell("comforts", two, other=one)
    world.tell("storm_ends")
    world.go(one, two, place=outside, how="return")
    world.tell("finds", two, thing=thing, into=spot)
    world.take(two, thing)
    world.give(two, thing, one)
    closing(draw, world, one, two)


def quarrel(draw: Draw, world: World) -> None:
    """Two people want one thing, and a third has an idea."""
    one, two, wise = cast.people(draw, 3)
    (place,) = cast.places(draw, 1)
    (thing,) = cast.things(draw, 1)
    world.at[thing] = one
    opening(draw, world, one, two, place=place)
    world.tell("holds", one, thing=thing)
    world.tell("wants_too", two, thing=thing)
    world.tell("quarrel", one, two, thing=thing)
    maybe(draw, world, 0.5, "insult", two, other=one)
    maybe(draw, world, 0.4, "insult", one, other=two)
    world.go(wise, place=place, how="comes_in")
    aside(draw, world, wise)
    world.tell("advice", wise, thing=thing)
    maybe(draw, world, 0.7, "make_peace", one, two)
    maybe(draw, world, 0.6, "promises_turn", one, thing=thing, other=two)
    world.tell("next_day")
    world.give(one, thing, two)
    maybe(draw, world, 0.4, "promise_kept", one)
    closing(draw, world, one, two)


def journey(draw: Draw, world: World) -> None:
    """A bag is packed, and two or three places are seen."""
    traveller, host = cast.people(draw, 2)
    home, *stops, end = cast.places(draw, draw.pick((3, 4)), TOWN + COUNTRY)
    (thing,), (bag,) = (
        cast.things(draw, 1),
        cast.boxes(draw, 1, ("bag", "basket", "rucksack", "sack", "satchel", "suitcase")),
    )
    vehicle = draw.pick(VEHICLES)
    world.at.update({host: end, bag: traveller, thing: traveller})
    opening(draw, world, traveller, place=home)
    world.tell("wants_to_travel", traveller, other=host, place=end)
    world.put(traveller, thing, bag, how="packs")
    maybe(draw, world, 0.4, "packs_too", traveller, into=bag)
    world.tell("departs", traveller, vehicle=vehicle)
    for stop in stops:
        world.go(traveller, place=stop, how="passes")
        world.tell("sight", traveller)
    world.go(traveller, place=end, how="arrives")
    maybe(draw, world, 0.6, "welcomes", host, other=traveller)
    chat(draw, world, host, traveller)
    if draw.chance(0.6):
        where_talk(draw, world, host, traveller, thing)
    world.take(traveller, thing, how="unpacks", into=bag)
    world.give(traveller, thing, host)
    closing(draw, world, traveller, host)


def market(draw: Draw, world: World) -> None:
    """Coins are counted before and after something is bought."""
    buyer, seller = cast.people(draw, 2)
    home, (shop,) = cast.places(draw, 1, ROOMS + COUNTRY)[0], cast.places(draw, 1, TOWN)
    wanted, other = cast.things(draw, 2)
    world.at.update({seller: shop, wanted: seller, other: seller})
    purse = 8 + draw.below(13)
    price = 2 + draw.below(purse - 4)
    opening(draw, world, buyer, place=home)
    world.tell("has_coins", buyer, n=NUMBERS[purse])
    world.go(buyer, place=shop)
    maybe(draw, world, 0.5, "meets_seller", buyer, other=seller)
    world.tell("on_sale", thing=wanted, second=other)
    aside(draw, world, buyer)
    world.tell("asks_price", buyer, thing=wanted)
    world.tell("says_price", seller, thing=wanted, price=NUMBERS[price])
    maybe(draw, world, 0.4, "too_dear", buyer, thing=other)
    world.take(buyer, wanted, how="buys", price=NUMBERS[price])
    world.tell("coins_left", buyer, n=NUMBERS[purse - price])
    chat(draw, world, seller, buyer)
    world.go(buyer, place=home, how="return")
    closing(draw, world, buyer)


def lesson(draw: Draw, world: World) -> None:
    """Somebody teaches, somebody forgot something, somebody helps."""
    teacher, pupil, friend = cast.people(draw, 3)
    (place,) = cast.places(draw, 1, ("school", "library", "museum", "study", "nursery", "gallery", "greenhouse"))
    topic, other_topic = draw.sample(SUBJECTS, 2)
    (spare,) = cast.things(draw, 1, ("crayon", "paintbrush", "pen", "pencil"))
    world.at[spare] = friend
    opening(draw, world, teacher, pupil, friend, place=place)
    world.tell("teaches", teacher, topic=topic)
    world.tell("question", teacher, other=pupil, topic=topic)
    if draw.chance(0.5):
        world.tell("knows_answer", pupil, other=teacher, topic=topic)
        maybe(draw, world, 0.6, "praise", teacher, other=pupil)
    else:
        world.tell("knows_not", pupil, topic=topic, second=other_topic)
        maybe(draw, world, 0.6, "whispers", friend, other=pupil)
    world.tell("forgot", pupil, thing=spare)
    world.give(friend, spare, pupil, how="lends_a")
    aside(draw, world, pupil)
    world.tell("writes", pupil, thing=spare, topic=topic)
    maybe(draw, world, 0.6, "lesson_ends")
    world.give(pupil, spare, friend, how="gives_back")
    closing(draw, world, pupil, friend)


def pet(draw: Draw, world: World) -> None:
    """An animal runs away and is found."""
    owner, friend = cast.people(draw, 2)
    home, away, third = cast.places(draw, 3)
    animal = draw.pick(ANIMALS)
    pet = Person(draw.pick(PETS), cast.IT)
    (spot,) = cast.spots(draw, 1, away)
    world.at[friend] = third
    opening(draw, world, owner, place=home)
    world.go(pet, place=home, how="has_pet", animal=animal, a_animal=with_article(animal), owner=owner)
    maybe(draw, world, 0.4, "pet_habit", pet)
    maybe(draw, world, 0.7, "forgot_door", owner)
    world.go(pet, place=away, how="runs_off")
    maybe(draw, world, 0.6, "calls_pet", owner, other=pet)
    world.go(owner, place=third)
    world.tell("meets", owner, other=friend)
    aside(draw, world, friend)
    whereabouts_talk(world, owner, friend, pet)
    world.go(owner, friend, place=away)
    world.tell("pet_found", pet, into=spot)
    maybe(draw, world, 0.6, "feeds", owner, other=pet)
    world.go(owner, pet, place=home, how="return")
    closing(draw, world, owner)


def harvest(draw: Draw, world: World) -> None:
    """Something is sown, watered, picked and shared."""
    one, two = cast.people(draw, 2)
    (field,) = cast.places(
        draw, 1, ("garden", "field", "greenhouse", "orchard", "courtyard", "churchyard", "meadow", "park")
    )
    crop, n = draw.pick(CROPS), 8 + draw.below(13)
    given = 2 + draw.below(n - 4)
    opening(draw, world, one, two, place=field)
    world.tell("sows", one, crop=crop)
    maybe(draw, world, 0.7, "waters", two)
    if draw.chance(0.4):
        world.tell("doubts", two, other=one)
        world.tell("patience", one, other=two)
    world.tell("weeks_pass")
    maybe(draw, world, 0.7, "grows", crop=crop)
    world.tell("picks", one, n=NUMBERS[n], crop=crop)
    aside(draw, world, one)
    world.tell("gives_some", one, given=NUMBERS[given], crop=crop, other=two)
    world.tell("keeps_some", one, n=NUMBERS[n - given], crop=crop)
    chat(draw, world, two, one)
    closing(draw, world, one, two)


def race(draw: Draw, world: World) -> None:
    """Three people run, and come in in an order."""
    first, second, third = cast.people(draw, 3)
    start, goal = cast.places(draw, 2, TOWN + COUNTRY)
    opening(draw, world, *draw.sample((first, second, third), 3), place=start)
    world.tell("race_idea", draw.pick((first, second, third)), place=goal)
    maybe(draw, world, 0.6, "race_starts", place=goal)
    maybe(draw, world, 0.6, "race_trouble", draw.pick((second, third)))
    world.go(first, place=goal, how="wins")
    world.go(second, place=goal, how="second", other=first)
    world.go(third, place=goal, how="last")
    maybe(draw, world, 0.6, "race_comment", third, other=first)
    chat(draw, world, second, first)
    closing(draw, world, first, second, third)


def show(draw: Draw, world: World) -> None:
    """Music is made with something that had to be found first."""
    player, singer, guest = cast.people(draw, 3)
    (stage,), (away,) = cast.places(draw, 1, TOWN), cast.places(draw, 1, ROOMS)
    (thing,) = cast.things(
        draw, 1, ("cymbal", "drum", "flute", "guitar", "harp", "horn", "mouth organ", "trumpet", "violin", "whistle")
    )
    (box,) = cast.boxes(draw, 1)
    world.at.update({thing: box, box: away})
    opening(draw, world, player, singer, place=stage)
    maybe(draw, world, 0.7, "show_plan", player, singer)
    world.tell("lost", player, thing=thing)
    if draw.chance(0.7):
        where_talk(draw, world, player, singer, thing)
    world.go(player, place=away)
    world.take(player, thing, how="takes_out", into=box)
    world.go(player, place=stage, how="return")
    aside(draw, world, player)
    world.tell("plays", player, thing=thing)
    maybe(draw, world, 0.7, "sings", singer)
    world.go(guest, place=stage, how="comes_in")
    maybe(draw, world, 0.7, "applauds", guest, thing=thing)
    chat(draw, world, guest, player)
    closing(draw, world, player, singer)


def visit(draw: Draw, world: World) -> None:
    """Somebody looks for a friend in one place after another."""
    seeker, friend, helper = cast.people(draw, 3)
    home, wrong, right = cast.places(draw, 3)
    world.at.update({friend: right, helper: wrong})
    opening(draw, world, seeker, place=home)
    world.tell("misses", seeker, other=friend)
    world.go(seeker, place=wrong)
    maybe(draw, world, 0.6, "person_not_here", seeker, other=friend, place=wrong)
    world.tell("meets", seeker, other=helper)
    chat(draw, world, helper, seeker)
    whereabouts_talk(world, seeker, helper, friend)
    maybe(draw, world, 0.4, "thanks", seeker, other=helper)
    world.go(seeker, place=right)
    world.tell("meets", seeker, other=friend)
    maybe(draw, world, 0.5, "busy_with", friend)
    if draw.chance(0.6):
        world.tell("invites", seeker, other=friend)
        world.tell("agrees", friend, other=seeker)
    closing(draw, world, seeker, friend)
