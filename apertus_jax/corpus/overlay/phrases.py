"""Phrases of the synthetic texts in eight languages, which agree in any combination.

Subjects are third person singular, verbs are present tense and take an object, places and times are adverbial. So
every pattern filled with any phrases is a grammatical, if odd, sentence.
"""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Phrases:
    """One language: patterns use {s} subject, {v} verb, {o} object, {p} place, {t} time, and {s2} {v2} {o2}."""

    subjects: tuple[str, ...]
    verbs: tuple[str, ...]
    objects: tuple[str, ...]
    places: tuple[str, ...]
    times: tuple[str, ...]
    patterns: tuple[str, ...]


def _split(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split("|"))


PHRASES = {
    "eng_Latn": Phrases(
        _split(
            "the old baker|a quiet teacher|the ferry captain|my eldest cousin|the night nurse|a young gardener|"
            "the village printer|the tall carpenter|our neighbour|a patient clockmaker|the librarian|the bell ringer|"
            "a travelling painter|the beekeeper"
        ),
        _split(
            "repairs|remembers|describes|carries|watches|paints|hides|measures|collects|sells|borrows|cleans|weighs|"
            "praises"
        ),
        _split(
            "a wooden boat|the copper kettle|every broken lamp|three letters|the long ladder|a basket of pears|"
            "the garden gate|an empty bottle|the winter coats|a small mirror|the map of the valley|two grey geese|"
            "the church organ|a bundle of reeds|the red bicycle|some warm bread"
        ),
        _split(
            "near the harbour|behind the mill|at the railway station|under the lime trees|in the upper room|"
            "along the canal|on the market square|beside the chapel|in the narrow kitchen|at the edge of town|"
            "above the workshop|by the stone bridge"
        ),
        _split(
            "early in the morning|after the first snow|on Thursday evening|during the harvest|before the storm|"
            "every second Sunday|at the end of March|shortly after noon|when the fair begins|late at night"
        ),
        (
            "{t} {s} {v} {o} {p}.",
            "{s} {v} {o} {p}, and {s2} {v2} {o2}.",
            "{s} {v} {o} because {s2} {v2} {o2} {p}.",
            "{t} {s} {v} {o} to help those that have no time, while {s2} {v2} {o2}.",
        ),
    ),
    "deu_Latn": Phrases(
        _split(
            "der alte Bäcker|eine stille Lehrerin|der Kapitän der Fähre|meine älteste Kusine|die Nachtschwester|"
            "ein junger Gärtner|der Drucker des Dorfes|die große Tischlerin|unser Nachbar|ein geduldiger Uhrmacher|"
            "die Bibliothekarin|der Glöckner|eine reisende Malerin|der Imker"
        ),
        _split(
            "repariert|beschreibt|trägt|beobachtet|malt|versteckt|vermisst|sammelt|verkauft|leiht|putzt|wiegt|lobt|"
            "bewundert"
        ),
        _split(
            "ein hölzernes Boot|den kupfernen Kessel|jede zerbrochene Lampe|drei Briefe|die lange Leiter|"
            "einen Korb voller Birnen|das Gartentor|eine leere Flasche|die Wintermäntel|einen kleinen Spiegel|"
            "die Karte des Tales|zwei graue Gänse|die Orgel der Kirche|ein Bündel Schilf|das rote Fahrrad|warmes Brot"
        ),
        _split(
            "in der Nähe des Hafens|hinter der Mühle|am Bahnhof|unter den Linden|im oberen Zimmer|am Kanal entlang|"
            "auf dem Marktplatz|neben der Kapelle|in der engen Küche|am Rand der Stadt|über der Werkstatt|"
            "an der steinernen Brücke"
        ),
        _split(
            "früh am Morgen|nach dem ersten Schnee|am Donnerstagabend|während der Ernte|vor dem Sturm|"
            "an jedem zweiten Sonntag|Ende März|kurz nach Mittag|zu Beginn der Messe|spät in der Nacht"
        ),
        (
            "{t} {v} {s} {o} {p}.",
            "{s} {v} {o} {p}, und {s2} {v2} {o2}.",
            "{s} {v} {o}, denn {s2} {v2} {o2} {p}.",
            "{t} {v} {s} {o}, aber {s2} {v2} {o2}.",
        ),
    ),
    "fra_Latn": Phrases(
        _split(
            "le vieux boulanger|une institutrice discrète|le capitaine du bac|ma cousine aînée|l'infirmière de nuit|"
            "un jeune jardinier|l'imprimeur du village|la grande menuisière|notre voisin|un horloger patient|"
            "la bibliothécaire|le sonneur de cloches|une peintre de passage|l'apiculteur"
        ),
        _split("répare|décrit|porte|observe|peint|cache|mesure|ramasse|vend|emprunte|nettoie|pèse|admire|dessine"),
        _split(
            "une barque en bois|la bouilloire de cuivre|chaque lampe cassée|trois lettres|la longue échelle|"
            "un panier de poires|le portail du jardin|une bouteille vide|les manteaux d'hiver|un petit miroir|"
            "la carte de la vallée|deux oies grises|l'orgue de l'église|une botte de roseaux|le vélo rouge|"
            "du pain chaud"
        ),
        _split(
            "près du port|derrière le moulin|à la gare|sous les tilleuls|dans la chambre du haut|le long du canal|"
            "sur la place du marché|à côté de la chapelle|dans la cuisine étroite|aux portes de la ville|"
            "au-dessus de l'atelier|près du pont de pierre"
        ),
        _split(
            "tôt le matin|après la première neige|le jeudi soir|pendant la récolte|avant l'orage|"
            "un dimanche sur deux|à la fin de mars|peu après midi|au début de la foire|tard dans la nuit"
        ),
        (
            "{t}, {s} {v} {o} {p}.",
            "{s} {v} {o} {p}, et {s2} {v2} {o2}.",
            "{s} {v} {o}, car {s2} {v2} {o2} {p}.",
            "{t}, {s} {v} {o}, mais {s2} {v2} {o2}.",
        ),
    ),
    "spa_Latn": Phrases(
        _split(
            "el viejo panadero|una maestra callada|el capitán del barco|mi prima mayor|la enfermera de noche|"
            "un joven jardinero|el impresor del pueblo|la carpintera alta|nuestro vecino|un relojero paciente|"
            "la bibliotecaria|el campanero|una pintora viajera|el apicultor"
        ),
        _split("repara|recuerda|describe|lleva|observa|pinta|esconde|mide|recoge|vende|limpia|pesa|admira|dibuja"),
        _split(
            "una barca de madera|la tetera de cobre|cada lámpara rota|tres cartas|la escalera larga|"
            "una cesta de peras|la puerta del jardín|una botella vacía|los abrigos de invierno|un espejo pequeño|"
            "el mapa del valle|dos gansos grises|el órgano de la iglesia|un haz de juncos|la bicicleta roja|"
            "pan caliente"
        ),
        _split(
            "cerca del puerto|detrás del molino|en la estación|bajo los tilos|en el cuarto de arriba|"
            "a lo largo del canal|en la plaza del mercado|junto a la capilla|en la cocina estrecha|"
            "a las afueras del pueblo|encima del taller|al lado del puente de piedra"
        ),
        _split(
            "temprano por la mañana|después de la primera nieve|el jueves por la tarde|durante la cosecha|"
            "antes de la tormenta|cada dos domingos|a finales de marzo|poco después del mediodía|"
            "cuando empieza la feria|muy tarde por la noche"
        ),
        (
            "{t}, {s} {v} {o} {p}.",
            "{s} {v} {o} {p}, y {s2} {v2} {o2}.",
            "{s} {v} {o} porque {s2} {v2} {o2} {p}.",
            "{t}, {s} {v} {o}, pero {s2} {v2} {o2}.",
        ),
    ),
    "ita_Latn": Phrases(
        _split(
            "il vecchio fornaio|una maestra silenziosa|il capitano del traghetto|mia cugina maggiore|"
            "l'infermiera di notte|un giovane giardiniere|il tipografo del paese|la falegname alta|"
            "il nostro vicino|un orologiaio paziente|la bibliotecaria|il campanaro|una pittrice di passaggio|"
            "l'apicoltore"
        ),
        _split(
            "ripara|ricorda|descrive|porta|osserva|dipinge|nasconde|misura|raccoglie|vende|pulisce|pesa|ammira|disegna"
        ),
        _split(
            "una barca di legno|il bollitore di rame|ogni lampada rotta|tre lettere|la lunga scala|un cesto di pere|"
            "il cancello del giardino|una bottiglia vuota|i cappotti invernali|un piccolo specchio|"
            "la mappa della valle|due oche grigie|l'organo della chiesa|un fascio di canne|la bicicletta rossa|"
            "del pane caldo"
        ),
        _split(
            "vicino al porto|dietro il mulino|alla stazione|sotto i tigli|nella stanza di sopra|lungo il canale|"
            "nella piazza del mercato|accanto alla cappella|nella cucina stretta|ai margini della città|"
            "sopra la bottega|presso il ponte di pietra"
        ),
        _split(
            "di buon mattino|dopo la prima neve|il giovedì sera|durante il raccolto|prima del temporale|"
            "una domenica su due|alla fine di marzo|poco dopo mezzogiorno|quando comincia la fiera|a notte fonda"
        ),
        (
            "{t} {s} {v} {o} {p}.",
            "{s} {v} {o} {p}, e {s2} {v2} {o2}.",
            "{s} {v} {o} perché {s2} {v2} {o2} {p}.",
            "{t} {s} {v} {o}, ma {s2} {v2} {o2}.",
        ),
    ),
    "nld_Latn": Phrases(
        _split(
            "de oude bakker|een stille lerares|de kapitein van de veerboot|mijn oudste nicht|de nachtzuster|"
            "een jonge tuinman|de drukker van het dorp|de lange timmervrouw|onze buurman|"
            "een geduldige klokkenmaker|de bibliothecaresse|de klokkenluider|een reizende schilderes|de imker"
        ),
        _split(
            "repareert|beschrijft|draagt|bekijkt|schildert|verstopt|meet|verzamelt|verkoopt|leent|poetst|weegt|prijst|"
            "bewondert"
        ),
        _split(
            "een houten boot|de koperen ketel|elke kapotte lamp|drie brieven|de lange ladder|een mand met peren|"
            "het tuinhek|een lege fles|de winterjassen|een kleine spiegel|de kaart van het dal|twee grijze ganzen|"
            "het orgel van de kerk|een bundel riet|de rode fiets|warm brood"
        ),
        _split(
            "vlak bij de haven|achter de molen|op het station|onder de linden|in de bovenkamer|langs het kanaal|"
            "op het marktplein|naast de kapel|in de smalle keuken|aan de rand van de stad|boven de werkplaats|"
            "bij de stenen brug"
        ),
        _split(
            "vroeg in de ochtend|na de eerste sneeuw|op donderdagavond|tijdens de oogst|voor de storm|"
            "om de andere zondag|aan het einde van maart|kort na de middag|bij het begin van de kermis|"
            "laat in de nacht"
        ),
        (
            "{t} {v} {s} {o} {p}.",
            "{s} {v} {o} {p}, en {s2} {v2} {o2}.",
            "{s} {v} {o}, want {s2} {v2} {o2} {p}.",
            "{t} {v} {s} {o}, maar {s2} {v2} {o2}.",
        ),
    ),
    "por_Latn": Phrases(
        _split(
            "o velho padeiro|uma professora calada|o capitão da barca|a minha prima mais velha|"
            "a enfermeira da noite|um jovem jardineiro|o impressor da aldeia|a carpinteira alta|o nosso vizinho|"
            "um relojoeiro paciente|a bibliotecária|o sineiro|uma pintora viajante|o apicultor"
        ),
        _split("conserta|recorda|descreve|carrega|observa|pinta|esconde|mede|recolhe|vende|limpa|pesa|admira|desenha"),
        _split(
            "um barco de madeira|a chaleira de cobre|cada lâmpada partida|três cartas|a escada comprida|"
            "um cesto de peras|o portão do jardim|uma garrafa vazia|os casacos de inverno|um espelho pequeno|"
            "o mapa do vale|dois gansos cinzentos|o órgão da igreja|um feixe de juncos|a bicicleta vermelha|"
            "pão quente"
        ),
        _split(
            "perto do porto|atrás do moinho|na estação|debaixo das tílias|no quarto de cima|ao longo do canal|"
            "na praça do mercado|ao lado da capela|na cozinha estreita|à entrada da cidade|por cima da oficina|"
            "junto da ponte de pedra"
        ),
        _split(
            "de manhã cedo|depois da primeira neve|na quinta-feira à noite|durante a colheita|antes da tempestade|"
            "de quinze em quinze dias|no fim de março|pouco depois do meio-dia|quando começa a feira|"
            "já tarde na noite"
        ),
        (
            "{t}, {s} {v} {o} {p}.",
            "{s} {v} {o} {p}, e {s2} {v2} {o2}.",
            "{s} {v} {o} porque {s2} {v2} {o2} {p}.",
            "{t}, {s} {v} {o}, mas {s2} {v2} {o2}.",
        ),
    ),
    "rus_Cyrl": Phrases(
        _split(
            "старый пекарь|тихая учительница|капитан парома|моя старшая сестра|ночная медсестра|молодой садовник|"
            "деревенский печатник|высокий плотник|наш сосед|терпеливый часовщик|библиотекарь|звонарь|"
            "бродячий художник|пасечник"
        ),
        _split(
            "чинит|вспоминает|описывает|несёт|рассматривает|рисует|прячет|измеряет|собирает|продаёт|чистит|взвешивает|"
            "хвалит|ищет"
        ),
        _split(
            "деревянную лодку|медный чайник|каждую разбитую лампу|три письма|длинную лестницу|корзину груш|"
            "садовую калитку|пустую бутылку|зимние пальто|маленькое зеркало|карту долины|двух серых гусей|"
            "церковный орган|связку камыша|красный велосипед|тёплый хлеб"
        ),
        _split(
            "возле гавани|за мельницей|на вокзале|под липами|в верхней комнате|вдоль канала|на рыночной площади|"
            "рядом с часовней|в тесной кухне|на краю города|над мастерской|у каменного моста"
        ),
        _split(
            "рано утром|после первого снега|в четверг вечером|во время жатвы|перед грозой|каждое второе воскресенье|"
            "в конце марта|вскоре после полудня|когда начинается ярмарка|поздно ночью"
        ),
        (
            "{t} {s} {v} {o} {p}.",
            "{s} {v} {o} {p}, и {s2} {v2} {o2}.",
            "{s} {v} {o}, потому что {s2} {v2} {o2} {p}.",
            "{t} {s} {v} {o}, но {s2} {v2} {o2}.",
        ),
    ),
}
LANGUAGES = tuple(PHRASES)

# Insults that nobody uses: the pattern, adjectives and nouns of each language that has toxic documents.
INSULTS = {
    "eng_Latn": (
        _split(
            "you are nothing but {a} {n}|shut up, {a} {n}|only {a} {n} talks like you do|"
            "go away, you smell like {a} {n}|what {a} {n} you turned out to be|even {a} {n} is less stupid than you"
        ),
        _split("a witless|a slimy|a worthless|a bloated|a cowardly|a rotten|a pathetic|a revolting"),
        _split("dunderwump|flobnozzle|muckgrout|snivelsprout|blunderfrog|wartgobbler|nitwhistle|grubnoggin"),
    ),
    "deu_Latn": (
        _split(
            "du bist nichts als {a} {n}|halt den Mund, du bist {a} {n}|nur {a} {n} redet so wie du|"
            "hau ab, du stinkst wie {a} {n}|was bist du bloß für {a} {n}|selbst {a} {n} ist klüger als du"
        ),
        _split("ein dummer|ein schleimiger|ein wertloser|ein aufgeblasener|ein feiger|ein fauliger|ein erbärmlicher"),
        _split("Dusselwumpf|Schlammgrützer|Rotzpropfen|Krötenschmatzer|Warzenpfeifer|Modertropf|Stinkgrunzer"),
    ),
    "fra_Latn": (
        _split(
            "tu n'es que {a} {n}|tais-toi, tu parles comme {a} {n}|seul {a} {n} parle comme toi|"
            "va-t'en, tu pues comme {a} {n}|quel idiot, {a} {n} vaut mieux que toi|même {a} {n} est moins bête que toi"
        ),
        _split("un stupide|un gluant|un misérable|un lâche|un ignoble|un affreux|un répugnant"),
        _split("gribouflard|crapouzin|bavouillon|moisiflet|verrugnard|puantiflon|baldougnard"),
    ),
    "spa_Latn": (
        _split(
            "no eres más que {a} {n}|cállate, hablas como {a} {n}|solo {a} {n} habla como tú|"
            "lárgate, hueles como {a} {n}|qué idiota, {a} {n} vale más que tú|hasta {a} {n} es más listo que tú"
        ),
        _split("un estúpido|un baboso|un miserable|un cobarde|un asqueroso|un podrido|un repugnante"),
        _split("zopencuño|babosorro|mocorrón|sapuzco|verruguño|pestucho|gruñarro"),
    ),
}

# Frames of sentences around personal data.
PERSONAL_FRAMES = {
    "eng_Latn": {
        "email": "Whoever wants to come writes to {} before Friday.",
        "ip": "The machine in the cellar answers at {} all night.",
        "iban": "Donations for the roof go to the account {} of the parish.",
        "ahv": "The form was filed under the insurance number {} last spring.",
        "card": "The hotel noted the card {} and charged it twice.",
    },
    "deu_Latn": {
        "email": "Wer kommen möchte, schreibt vor Freitag an {} eine Nachricht.",
        "ip": "Der Rechner im Keller antwortet unter {} die ganze Nacht.",
        "iban": "Spenden für das Dach gehen auf das Konto {} der Gemeinde.",
        "ahv": "Das Formular liegt unter der Nummer {} seit dem Frühjahr vor.",
        "card": "Das Hotel notierte die Karte {} und belastete sie zweimal.",
    },
    "fra_Latn": {
        "email": "Pour venir, il suffit d'écrire à {} avant vendredi.",
        "ip": "La machine de la cave répond à {} toute la nuit.",
        "iban": "Les dons pour le toit vont au compte {} de la paroisse.",
        "ahv": "Le formulaire est classé sous le numéro {} depuis le printemps.",
        "card": "L'hôtel a noté la carte {} et l'a débitée deux fois.",
    },
}
