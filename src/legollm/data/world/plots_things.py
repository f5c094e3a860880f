"""Stories in which a thing changes hands or hiding places."""

from legollm.data.world import cast
from legollm.data.world.beats import aside, chat, closing, maybe, opening, where_talk, whereabouts_talk
from legollm.data.world.draw import Draw
from legollm.data.world.lexicon import BIG_BOXES, COUNTRY, HARD, NUMBERS, ROOMS, SMALL, SMALL_BOXES, TOWN
from legollm.data.world.state import World


def errand(draw: Draw, world: World) -> None:
    """Somebody fetches a thing for somebody else, and may have to ask for it."""
    sender, helper, friend = cast.people(draw, 3)
    home, away = cast.places(draw, 2)
    (thing,) = cast.things(draw, 1)
    (hidden,) = cast.hiding_places(draw, 1, away)
    world.at.update({friend: away, hidden: away, thing: hidden})
    opening(draw, world, sender, helper, place=home)
    world.tell("needs", sender, thing=thing)
    maybe(draw, world, 0.2, "needs_because", sender, thing=thing)
    world.tell("asks_to_fetch", sender, thing=thing, other=helper, place=away)
    maybe(draw, world, 0.4, "agrees", helper, other=sender)
    world.go(helper, place=away)
    aside(draw, world, helper)
    if draw.chance(0.7):
        world.tell("meets", helper, other=friend)
        chat(draw, world, friend, helper)
        where_talk(draw, world, helper, friend, thing)
        maybe(draw, world, 0.3, "thanks", helper, other=friend)
    else:
        maybe(draw, world, 0.5, "searches", helper, thing=thing)
        world.tell("finds", helper, thing=thing, into=hidden)
    world.take(helper, thing)
    aside(draw, world, helper)
    world.go(helper, place=home, how="return")
    world.give(helper, thing, sender)
    maybe(draw, world, 0.5, "thanks", sender, other=helper)
    closing(draw, world, sender)


def swap(draw: Draw, world: World) -> None:
    """Two people with the wrong thing each."""
    one, two = cast.people(draw, 2)
    (place,) = cast.places(draw, 1)
    first, second = cast.things(draw, 2)
    world.at.update({first: one, second: two})
    opening(draw, world, one, two, place=place)
    world.tell("holds", one, thing=first)
    aside(draw, world, one)
    world.tell("holds", two, thing=second)
    chat(draw, world, one, two)
    maybe(draw, world, 0.6, "prefers", one, thing=second)
    world.tell("offers_swap", one, other=two, thing=first, second=second)
    if draw.chance(0.25):
        world.tell("refuses", two, other=one)
        world.tell("accepts_no", one, other=two)
        closing(draw, world, two)
        return
    maybe(draw, world, 0.6, "agrees", two, other=one)
    world.give(one, first, two)
    world.give(two, second, one)
    maybe(draw, world, 0.3, "owns_now", one, thing=second)
    closing(draw, world, one, two)


def present(draw: Draw, world: World) -> None:
    """Something is bought, wrapped and given."""
    giver, child, seller = cast.people(draw, 3)
    home, (shop,) = cast.places(draw, 1, ROOMS)[0], cast.places(draw, 1, TOWN)
    (thing,) = cast.things(draw, 1)
    (box,) = cast.boxes(draw, 1)
    world.at.update({seller: shop, thing: seller})
    world.tell("birthday", child)
    opening(draw, world, giver, place=home)
    maybe(draw, world, 0.6, "wants_to_give", giver, other=child)
    world.go(giver, place=shop)
    maybe(draw, world, 0.5, "meets_seller", giver, other=seller)
    world.tell("sees", giver, thing=thing)
    price = NUMBERS[draw.below(18) + 2]
    if draw.chance(0.4):
        world.tell("asks_price", giver, thing=thing)
        world.tell("says_price", seller, thing=thing, price=price)
    world.take(giver, thing, how="buys", price=price)
    world.go(giver, place=home, how="return")
    world.put(giver, thing, box)
    maybe(draw, world, 0.4, "wraps", giver, into=box)
    world.go(child, place=home, how="comes_in")
    maybe(draw, world, 0.7, "gives_parcel", giver, other=child, into=box)
    world.take(child, thing, how="unpacks", into=box)
    maybe(draw, world, 0.6, "thanks", child, other=giver)
    closing(draw, world, child)


def moved(draw: Draw, world: World) -> None:
    """A thing is put elsewhere while its owner is away, who then looks in the wrong place."""
    owner, mover = cast.people(draw, 2)
    home, away = cast.places(draw, 2)
    (thing,) = cast.things(draw, 1)
    first, second = cast.hiding_places(draw, 2, home)
    world.at.update({thing: owner, first: home, second: home})
    opening(draw, world, owner, mover, place=home)
    world.tell("holds", owner, thing=thing)
    world.put(owner, thing, first)
    chat(draw, world, owner, mover)
    world.go(owner, place=away)
    maybe(draw, world, 0.5, "meanwhile", mover, other=owner)
    world.put(mover, thing, second, how="moves")
    aside(draw, world, mover)
    world.go(owner, place=home, how="return")
    believed = world.seen[owner, thing]
    world.tell("looks_in_vain", owner, thing=thing, where=believed.at)
    if draw.chance(0.6):
        where_talk(draw, world, owner, mover, thing)
    else:
        world.tell("confesses", mover, thing=thing, other=owner, where=world.at[thing].at)
    world.take(owner, thing)
    maybe(draw, world, 0.4, "apologises", mover, other=owner)
    closing(draw, world, owner)


def lost(draw: Draw, world: World) -> None:
    """A thing is looked for in one place after another."""
    owner, friend = cast.people(draw, 2)
    home, wrong, right = cast.places(draw, 3)
    (thing,) = cast.things(draw, 1)
    (hidden,) = cast.hiding_places(draw, 1, right)
    world.at.update({hidden: right, thing: hidden})
    opening(draw, world, owner, place=home)
    world.tell("lost", owner, thing=thing)
    aside(draw, world, owner)
    maybe(draw, world, 0.5, "not_here", owner, thing=thing, where=home.at)
    world.go(owner, place=wrong)
    world.tell("not_here", owner, thing=thing, where=wrong.at)
    if draw.chance(0.6):
        world.go(friend, place=wrong, how="comes_in")
        if draw.chance(0.6):
            world.tell("sees_trouble", friend, other=owner)
            world.tell("tells_loss", owner, thing=thing)
        world.tell("hint", friend, thing=thing, place=right)
        world.go(owner, friend, place=right)
    else:
        maybe(draw, world, 0.5, "has_idea", owner)
        world.go(owner, place=right)
    world.tell("finds", owner, thing=thing, into=hidden)
    if draw.chance(0.5):
        world.take(owner, thing)
    closing(draw, world, owner)


def nested(draw: Draw, world: World) -> None:
    """A small thing in a small box in a big box."""
    one, two, late = cast.people(draw, 3)
    home, away = cast.places(draw, 2)
    (thing,) = cast.things(draw, 1, SMALL)
    (inner,), (outer,) = cast.boxes(draw, 1, SMALL_BOXES), cast.boxes(draw, 1, BIG_BOXES)
    world.at.update({thing: one, inner: home, outer: home})
    opening(draw, world, one, two, place=home)
    world.tell("holds", one, thing=thing)
    maybe(draw, world, 0.5, "wants_safe", one, thing=thing)
    world.put(one, thing, inner)
    world.put(draw.pick((one, two)), inner, outer)
    chat(draw, world, two, one)
    world.go(one, place=away)
    world.go(late, place=home, how="comes_in")
    if draw.chance(0.6):
        where_talk(draw, world, late, two, thing)
    if draw.chance(0.6):
        whereabouts_talk(world, late, two, one)
    if draw.chance(0.6):
        world.take(late, inner, how="takes_out", into=outer)
        world.take(late, thing, how="unpacks", into=inner)
        maybe(draw, world, 0.5, "admires", late, thing=thing)
        world.put(late, thing, inner, how="puts_back")
    closing(draw, world, late)


def lending(draw: Draw, world: World) -> None:
    """A thing goes from hand to hand and comes back."""
    owner, second, third = cast.people(draw, 3)
    home, away, end = cast.places(draw, 3)
    (thing,) = cast.things(draw, 1)
    world.at.update({thing: owner, third: away})
    opening(draw, world, owner, second, place=home)
    world.tell("holds", owner, thing=thing)
    maybe(draw, world, 0.6, "asks_to_borrow", second, thing=thing, other=owner)
    world.give(owner, thing, second, how="lends")
    maybe(draw, world, 0.5, "promises_back", second, thing=thing, other=owner)
    world.go(second, place=away)
    aside(draw, world, second)
    world.tell("meets", second, other=third)
    chat(draw, world, third, second)
    world.give(second, thing, third)
    world.tell("next_day")
    world.go(owner, second, place=end, how="meet_in")
    where_talk(draw, world, owner, second, thing)
    world.go(third, place=end, how="comes_in")
    world.give(third, thing, owner, how="gives_back")
    maybe(draw, world, 0.4, "promise_kept", second)
    closing(draw, world, owner)


def repair(draw: Draw, world: World) -> None:
    """A thing breaks and is mended for a price."""
    owner, mender = cast.people(draw, 2)
    home, (shop,) = cast.places(draw, 1, ROOMS + COUNTRY)[0], cast.places(draw, 1, TOWN)
    (thing,) = cast.things(draw, 1, HARD)
    world.at.update({thing: owner, mender: shop})
    opening(draw, world, owner, place=home)
    world.tell("holds", owner, thing=thing)
    world.tell("breaks", owner, thing=thing)
    aside(draw, world, owner)
    world.go(owner, place=shop, how="carry", thing=thing)
    world.tell("meets", owner, other=mender)
    world.tell("asks_to_mend", owner, thing=thing, other=mender)
    world.give(owner, thing, mender)
    world.tell("mends", mender, thing=thing)
    maybe(draw, world, 0.6, "says_price", mender, thing=thing, price=NUMBERS[draw.below(18) + 2])
    world.give(mender, thing, owner, how="gives_back")
    chat(draw, world, mender, owner)
    world.go(owner, place=home, how="return")
    closing(draw, world, owner)
