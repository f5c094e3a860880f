"""The words of the micro-world, by what they can be used for."""


def _words(text: str) -> tuple[str, ...]:
    """Words between white space; an underscore stands for a space inside one."""
    return tuple(word.replace("_", " ") for word in text.split())


def with_article(words: str) -> str:
    """`words` after "a" or "an", as it is pronounced."""
    vowel = words[0] in "aeiou" and not words.startswith(("uni", "use", "uku", "one"))
    return ("an " if vowel or words.startswith(("hour", "honest", "heir")) else "a ") + words


WOMEN = _words("""
    Ada Agnes Alma Amina Anna Bella Bertha Carla Celia Clara Cleo Dana Della Dora Edith Ella Elsa Emma Esther Eva Fay
    Fiona Flora Freya Gia Gloria Greta Hanna Hazel Helen Ida Ines Iris Ivy Jane Joan Judith Julia Kate Kira Lara Leila
    Lena Lily Lucy Mabel Maria Martha Maya Mira Molly Nadia Nina Nora Olga Olive Paula Pia Polly Rita Rosa Ruth Sally
    Sara Selma Sofia Stella Tara Tess Thea Uma Vera Wanda Yara Zoe
""")
MEN = _words("""
    Abel Adam Alan Albert Amos Anton Arno Arthur Ben Boris Bruno Carl Caspar Cyril Dan David Dennis Edgar Eli Emil
    Enzo Eric Felix Finn Frank Fred George Gus Hal Harry Hector Henry Hugo Ian Igor Ivan Jack Jacob Jasper Joel
    John Jonas Karl Kurt Lars Leo Liam Louis Lucas Mark Martin Max Milo Ned Nico Noah Oliver Omar Oscar Otto Owen
    Paul Peter Philip Ralph Rex Robin Rolf Roy Sam Simon Stefan Theo Toby Tom Victor Walter Will Yusuf
""")

ROOMS = _words("""
    attic bathroom bedroom cellar corridor dining_room guest_room hall kitchen larder laundry library living_room
    loft nursery pantry parlour playroom study sewing_room
""")
TOWN = _words("""
    bakery bank barber's_shop bookshop brewery castle chapel cinema courtyard dairy fire_station gallery gym
    harbour hospital hotel inn market mill museum old_tower palace pharmacy post_office school smithy stadium
    tailor's_shop temple theatre town_hall toy_shop workshop zoo
""")
COUNTRY = _words("""
    barn boathouse cave churchyard cornfield cowshed desert farmhouse field forest garden glade greenhouse hayloft
    hen_house hut lighthouse meadow orchard park playground quarry ravine stable swamp valley vineyard windmill
    woodshed
""")
PLACES = ROOMS + TOWN + COUNTRY

SMALL = _words("""
    acorn badge bead bell bracelet brooch button candle card chess_piece clothes_peg coin comb compass cork crayon
    cup dollar earring eraser feather fork key letter locket magnet map marble match medal mirror mouth_organ nail
    necklace needle note nutcracker pearl pebble pen pencil penknife photograph pin pipe postcard razor ribbon
    ring ruler screw sea_shell seal spoon spring stamp stone teaspoon thimble ticket toothbrush watch whistle
""")
HARD = _words("""
    anchor axe ball barometer bicycle bowl broom bucket camera clock crown cymbal doll drum flute frying_pan globe
    guitar hammer harp helmet horn horseshoe jug kettle ladder ladle lamp lantern mask model_ship mug oar
    paintbrush parcel picture plate pot rake saddle saw scooter shield shovel skateboard sledge spade statue stool
    sword teapot telescope toolbox torch toy_train tray trumpet umbrella vase violin wheel wheelbarrow
""")
SOFT = _words("""
    apron bedspread belt blanket book cap cape cloak coat cushion diary dress flag glove handkerchief hat jacket
    jumper kite mat napkin newspaper notebook pillow puppet quilt robe rope rug sail sandal scarf shawl shirt shoe
    skirt slipper sock songbook sponge tablecloth teddy_bear tent towel veil waistcoat wallet wig
""")
THINGS = SMALL + HARD + SOFT

SMALL_BOXES = _words("""
    biscuit_tin bowl cigar_box envelope flowerpot glove_box jam_jar jewel_case lunch_box matchbox pencil_case
    pouch purse satchel shoebox sugar_bowl tea_caddy tin
""")
BIG_BOXES = _words("""
    barrel basket cardboard_box chest coal_bin crate hamper picnic_basket rucksack sack suitcase tool_chest trunk
    tub wooden_box
""")
FURNITURE = _words(
    "bathtub bookcase cabinet cupboard desk drawer dresser icebox linen_press oven safe sideboard wardrobe"
)


def _spots(**nouns: str) -> tuple[tuple[str, str], ...]:
    return tuple((prep, noun) for prep, words in nouns.items() for noun in _words(words))


INDOOR_SPOTS = _spots(
    on="armchair bench bookshelf chair counter mantelpiece piano shelf sofa stove table window_sill workbench",
    under="armchair bench carpet chair doormat piano pillow sofa stairs stove table",
    behind="bookshelf clock curtain door fireplace mirror pillar screen sofa stove",
    beside="door fireplace oven stove window",
)
OUTDOOR_SPOTS = _spots(
    on="bench gate_post ground stone stump wall wheelbarrow woodpile",
    under="bench bridge bush hedge ladder pile_of_leaves tree",
    behind="bush fence hedge rock tree wall woodpile",
    beside="fence gate path pond stream well",
)

COLOURS = _words(
    "black blue brown crimson golden green grey orange pink purple red scarlet silver turquoise violet white yellow"
)
HARD_LOOKS = COLOURS + _words("""
    antique battered bent big broken cheap chipped clean copper costly cracked curious dented dusty elegant
    enormous expensive famous fine foreign glittering handsome heavy light lovely metal modern muddy new odd old
    ordinary painted plain plastic polished precious pretty round rusty scratched shiny simple small special
    splendid steel strange sturdy tiny ugly unusual valuable wooden
""")
SOFT_LOOKS = COLOURS + _words("""
    beautiful big checked cheap clean colourful crumpled dirty dusty elegant embroidered expensive faded fancy
    fine flowery folded foreign home-made large light lovely muddy new old ordinary patched plain pretty ragged
    simple small soft special spotted striped thick thin tiny torn ugly unusual velvet warm woollen worn
""")

JOBS = _words("""
    actor architect artist baker barber bookseller builder carpenter clown cobbler cook dentist detective doctor
    driver engineer farmer fisher florist gardener glazier goldsmith guard hunter inventor jeweller judge juggler
    librarian locksmith magician mayor mechanic miller miner musician nurse painter photographer pilot plumber
    poet potter printer reporter sailor scientist shepherd singer smith soldier surgeon tailor teacher
    ticket_collector translator vet weaver writer
""")
FOODS = _words("""
    beans biscuits bread butter cabbage carrots cheese cherries chestnuts chocolate cucumber dates eggs figs fish
    grapes ham honey jam leeks lemons lentils lettuce mushrooms noodles nuts oats olives onions pasta peaches
    pears peas pickles plums potatoes pumpkin radishes raisins raspberries rice sausages spinach strawberries
    tomatoes turnips walnuts yoghurt
""")
DISHES = _words("""
    apple_pie barley_broth bean_stew carrot_cake cheese_tart cherry_tart chicken_pie goulash fish_soup fried_rice
    fruit_salad gingerbread lemon_tart lentil_soup mushroom_soup noodle_soup onion_soup pea_soup pizza plum_cake
    porridge potato_salad pumpkin_soup rice_pudding roast_beef tomato_soup vegetable_stew meat_loaf potato_bake
    barley_bread honey_cake leek_tart nut_bread beetroot_soup
""")
FRUIT = _words("""
    acorns apples apricots bananas buttons candles cherries chestnuts coconuts eggs figs flowers lemons limes
    marbles melons mushrooms oranges peaches pears pebbles plums potatoes pumpkins roses shells stamps tomatoes
    tulips walnuts
""")
ANIMALS = _words("""
    badger beaver budgie calf canary cat chicken cow crow dog donkey duck ferret foal fox frog goat goose hamster
    hare hedgehog hen horse kid kitten lamb lizard magpie mole monkey mouse mule otter owl parrot peacock pig
    pigeon pony puppy rabbit raven rooster sheep snail sparrow spider squirrel swan toad tortoise turkey turtle
    weasel
""")
PETS = _words(
    "Bandit Biscuit Blossom Button Daisy Dot Fluffy Ginger Muffin Nutmeg Patch Pepper Pip Pixie Rusty Scamp Smoky "
    "Snowy Socks Sparky Spot Tiger Toffee Whiskers"
)
CROPS = _words("""
    beans beetroots carrots crocuses cucumbers daffodils daisies hyacinths leeks lettuces lilies marigolds melons
    onions pansies peas poppies potatoes pumpkins radishes roses strawberries sunflowers tomatoes tulips turnips
    violets peonies snowdrops
""")
SUBJECTS = _words("""
    ants bees birds bridges castles clouds comets deserts dinosaurs earthquakes electricity fossils fractions
    geometry glaciers gravity grammar history insects islands kings knights magnets maps mountains music numbers
    oceans painting pirates planets plants poetry pyramids queens rivers rockets seasons ships spelling stars
    steam_engines stories trains triangles tides volcanoes weather whales
""")
VEHICLES = _words("boat bus canoe carriage cart coach ferry horse motorbike sledge steamer tram train van wagon")
GAMES = _words("""
    cards catch charades chess dominoes draughts football hide-and-seek hopscotch leapfrog skittles snap
    table_tennis tennis
""")
DAYS = _words("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")
SEASONS = (
    ("spring", _words("March April May"), _words("breezy bright fresh green mild rainy showery sunny warm windy")),
    (
        "summer",
        _words("June July August"),
        _words("bright cloudless dry dusty glorious hot scorching sultry sunny warm"),
    ),
    (
        "autumn",
        _words("September October November"),
        _words("breezy chilly cloudy damp foggy golden grey misty rainy windy"),
    ),
    (
        "winter",
        _words("December January February"),
        _words("bitter chilly cold crisp dark freezing frosty grey icy snowy"),
    ),
)
NUMBERS = _words(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty"
)

# Words a sentence frame may leave open, as <name>; each is one draw.
FILLS: dict[str, tuple[str, ...]] = {
    "went": _words(
        "went walked ran hurried strolled wandered rushed trotted marched crept drifted jogged strode sauntered plodded"
    ),
    "slowly": _words("""
        slowly quietly quickly happily sadly carefully proudly eagerly calmly nervously cheerfully gently
        silently thoughtfully bravely politely gladly lazily merrily briskly patiently boldly absently
        grumpily shyly solemnly softly steadily suddenly swiftly tenderly warily wearily secretly anxiously
        awkwardly bashfully casually clumsily coolly curiously daintily dreamily drowsily fondly gingerly
        gravely helpfully hopefully hurriedly impatiently kindly loyally meekly mildly neatly obediently
        playfully promptly reluctantly sensibly seriously sheepishly sleepily smoothly stiffly stubbornly
        thankfully timidly warmly wisely
    """),
    "happy": _words("""
        happy glad pleased cheerful proud delighted relieved excited hopeful content thrilled merry overjoyed
        grateful satisfied joyful
    """),
    "sad": _words("""
        sad upset gloomy worried lonely miserable disappointed unhappy troubled anxious annoyed restless
        puzzled sorry ashamed nervous
    """),
    "tired": _words("tired sleepy hungry thirsty cold weary bored exhausted breathless"),
    "kind": _words("""
        kind clever young old cheerful shy brave quiet patient lazy curious friendly generous honest stubborn
        careful clumsy proud polite serious busy gentle grumpy hard-working lively absent-minded talkative
        wise thoughtful tidy cautious charming strict modest skilful
    """),
    "job": JOBS,
    "subject": SUBJECTS,
    "dish": DISHES,
    "food": FOODS,
    "game": GAMES,
    "crop": CROPS,
    "animal": ANIMALS,
    "relative": _words(
        "aunt uncle cousin grandmother grandfather sister brother niece nephew neighbour godmother teacher"
    ),
    "soon": _words("""
        then soon later afterwards next presently a_little_later a_moment_later after_a_while before_long
        some_time_later after_that quite_soon shortly_afterwards
    """),
    "noise": _words("dog clock owl bell door cart horse child crow drum fiddle train hammer cockerel"),
    "good": _words("good great excellent splendid fine wonderful lovely brilliant clever sensible"),
    "calmly": _words("calmly carefully closely patiently politely quietly silently thoughtfully eagerly nervously"),
    "sweetly": _words("sweetly loudly softly badly beautifully merrily well quietly for_an_hour all_day until_dusk"),
    "colour": COLOURS,
    "fruit": FRUIT,
    "number": NUMBERS[2:],
    "hour": NUMBERS[2:13],
    "clothes": _words(
        "apron bonnet cap cape cloak coat dress hat helmet jacket jumper robe scarf shawl shirt waistcoat wig"
    ),
    "boots": _words("boots gloves glasses mittens sandals shoes slippers socks earmuffs galoshes"),
    "thing": THINGS,
    "tool": _words("glue nails paint pliers screws string tape tongs varnish wax wire twine"),
    "tasty": _words("delicious tasty fresh hot salty sweet spicy sour crisp creamy juicy"),
    "spice": _words(
        "basil cinnamon cloves ginger mint nutmeg paprika parsley pepper rosemary saffron sage salt thyme vanilla"
    ),
    "drink": _words("apple_juice buttermilk cider cocoa coffee lemonade milk orange_juice tea water ginger_beer"),
    "birds": _words(
        "bats bees beetles butterflies cats crickets dragonflies ducks geese gulls hens mice moths pigeons "
        "rabbits sheep snails sparrows spiders wasps"
    ),
    "work": _words(
        "baking carving cleaning cooking digging drawing dusting gardening ironing knitting mending packing "
        "painting polishing reading sewing spinning sweeping washing weeding whittling writing"
    ),
    "unkind": _words("stubborn greedy selfish rude lazy mean silly stupid noisy vain clumsy"),
    "pour": _words("rain pour snow hail drizzle"),
    "kind_way": _words("short long easy steep usual wrong muddy narrow pretty same sunny shady"),
    "kind_trader": _words("merchant trader seller shopkeeper dealer"),
    "elder": _words("""
        Agatha Albertina Ambrose Archibald Augusta Barnaby Basil Beatrice Bernard Cecil Clarence Clement
        Constance Cordelia Cornelius Desmond Dorothea Ebenezer Edmund Eleanor Ernestine Eugene Eunice
        Ferdinand Gertrude Gilbert Gregory Gwendolyn Harriet Henrietta Herbert Hilda Horace Hortense Humphrey
        Isidore Jeremiah Josephine Leopold Lucinda Mathilda Maurice Mildred Millicent Montague Mortimer Muriel
        Nathaniel Octavia Oswald Percival Penelope Prudence Quentin Reginald Rosalind Rupert Sebastian
        Sylvester Thaddeus Theodora Ursula Vincent Violetta Wilfred Winifred
    """),
    "cousin": _words("cousin neighbour godchild friend teacher dentist landlord tutor doctor pen_friend"),
    "look": HARD_LOOKS,
    "hard": HARD,
    "small": SMALL,
    "day": DAYS,
    "body": _words("knee elbow nose chin ear thumb shoulder back"),
    "bird": _words("blackbird cuckoo robin thrush lark wren swallow nightingale starling finch"),
    "kind_day": _words(
        "calm cold dark dull fine grey lovely mild peaceful pleasant quiet rainy strange sunny warm wet windy"
    ),
    "tree": _words("ash beech birch chestnut elm fir lime maple oak pine poplar willow"),
}
