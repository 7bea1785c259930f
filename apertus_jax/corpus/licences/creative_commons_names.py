"""Creative Commons names as people write them: elements, version and country, in many languages.

A name is understood only as a whole. A word that is in no list makes it no name of a deed, so that a restriction in a
language that is missing here can never be passed over.
"""

from __future__ import annotations

import functools
import re

from apertus_jax.corpus.licences.spellings import reduced

# What each element is called in the titles of the deeds, versions 1.0 to 4.0; spaces, accents and case do not matter.
_ELEMENTS = {
    "by": (
        "by, attribution, attribute, namensnennung, paternité, atribución, reconocimiento, attribuzione, atribuição, "
        "naamsvermelding, uznanie autorstwa, erkännande, navngivelse, kreditering, nimeä, uveďte původ, "
        "uveďte původ díla, uveďte autora, uvedenie autora, nevezd meg, atribuire, αναφορά δημιουργού, αναφορά, "
        "atıf, alıntı, reconeixement, atribució, imenovanje, autorstvo, priznanje avtorstva, recoñecemento, aitortu, "
        "atribusi, ghi công, autorile viitamine, priskyrimas, atsauce, признание, атрибуция, с указанием авторства, "
        "із зазначенням авторства, зазначення авторства, наведи извор, ауторство, именовање, 表示, 署名, 姓名标示, "
        "姓名標示, 저작자표시, نسب المصنف, نسبة المصنف, النسبة, ייחוס"
    ),
    "nc": (
        "nc, noncommercial, non commercial use, noncommercial use only, no commercial use, nicht kommerziell, "
        "nichtkommerziell, keine kommerzielle nutzung, pas d'utilisation commerciale, non commerciale, non commercial, "
        "no comercial, uso no comercial, não comercial, uso não comercial, niet commercieel, użycie niekomercyjne, "
        "ickekommersiell, icke kommersiell, ikke kommersiell, ikke kommerciel, ei kaupallinen, epäkaupallinen, "
        "neužívejte komerčně, neužívejte dílo komerčně, nekomerčné, nekomerčné použitie, ne add el, necomercial, "
        "μη εμπορική χρήση, μη εμπορική, gayri ticari, nekomercijalno, nekomercialno, non comercial, ez komertziala, "
        "nonkomersial, phi thương mại, mitteäriline, mitteäriline eesmärk, nekomercinis, nekomercinis naudojimas, "
        "nekomerciāls, некомерсиално, некоммерческое использование, некоммерческая, некоммерческий, некоммерчески, "
        "некомерційне використання, некомерційна, некомерцијално, 非営利, 非商业性使用, 非商业性, 非商业, 非商業性, "
        "비영리, غير تجاري, غير التجاري, לא מסחרי, שימוש לא מסחרי, ללא שימוש מסחרי"
    ),
    "nd": (
        "nd, noderivatives, noderivs, no derivative works, no derivates, keine bearbeitung, keine bearbeitungen, "
        "pas de modification, pas de modifications, sin derivadas, sin derivados, sin obra derivada, sin obras "
        "derivadas, non opere derivate, no opere derivate, sem derivações, sem derivados, sem derivadas, "
        "geen afgeleide werken, bez utworów zależnych, inga bearbetningar, ingen bearbejdelse, ingen bearbejdelser, "
        "ingen bearbeidelse, ingen bearbeidelser, ei muutoksia, ei jälkiperäisiä teoksia, nezpracovávejte, "
        "nezasahujte do díla, bez odvodených diel, nespracovávať, ne változtasd, fără derivate, fără modificări, "
        "όχι παράγωγα έργα, όχι παράγωγα, türetilemez, asla türetilemez, sense obra derivada, sense derivades, "
        "bez prerada, bez prerade, brez predelav, sen derivadas, lan eratorririk gabe, tanpa turunan, "
        "không phái sinh, tuletatud teoste keeld, jokių išvestinių darbų, bez atvasinājumiem, без производни, "
        "без производных произведений, без производных, без похідних, без похідних творів, без прерада, 改変禁止, "
        "禁止演绎, 禁止改作, 変更禁止, 변경금지, منع الاشتقاق, بدون اشتقاق, لا اشتقاق, איסור יצירות נגזרות, "
        "ללא יצירות נגזרות"
    ),
    "sa": (
        "sa, sharealike, weitergabe unter gleichen bedingungen, partage dans les mêmes conditions, "
        "partage à l'identique, partage des conditions initiales à l'identique, compartir igual, "
        "condividi allo stesso modo, compartilha igual, compartilhamento pela mesma licença, partilha igual, "
        "partilha nos mesmos termos, partilha nos termos da mesma licença, gelijk delen, na tych samych warunkach, "
        "dela lika, del på samme vilkår, jaa samoin, zachovejte licenci, rovnaké šírenie, "
        "zdieľanie za rovnakých podmienok, így add tovább, partajare în condiții identice, "
        "distribuire în condiții identice, παρόμοια διανομή, aynı lisansla paylaş, lisans devam, dijeli pod istim "
        "uvjetima, deliti pod istim uslovima, deljenje pod enakimi pogoji, partillar igual, partekatu berdin, "
        "berbagi serupa, chia sẻ tương tự, jagamine samadel tingimustel, analogiškas platinimas, "
        "dalīšana ar tādiem pašiem nosacījumiem, споделяне на споделеното, с сохранением условий, на тех же условиях, "
        "распространение на тех же условиях, поширення на тих самих умовах, на тих самих умовах, "
        "делити под истим условима, 継承, 相同方式共享, 相同方式分享, 동일조건변경허락, الترخيص بالمثل, "
        "المشاركة بالمثل, שיתוף זהה"
    ),
}
_COMMONS = (
    "cc, creativecommons, クリエイティブコモンズ, 知识共享, 創用cc, 크리에이티브 커먼즈, المشاع الإبداعي, "
    "المشاع الابداعي, креатив коммонс, קריאייטיב קומונס"
)
_SAYS_NOTHING = (
    "and, und, et, only, international, internationale, internacional, internazionale, internationaal, "
    "międzynarodowe, internationell, internasjonal, mezinárodní, medzinárodná, kansainvälinen, nemzetközi, "
    "uluslararası, међународна, международная, міжнародна, 国际, 國際, 国際, 국제, دولي, unported, non transposé, "
    "non transposée, no portada, não adaptada, nicht portiert, generic, genérica, générique, generica, intl, public, "
    "deed, igo, lizenz, licencia, licença, licenza, licentie, licencja, licens, lisens, лицензия, ліцензія, "
    "ライセンス, 许可协议, 许可证, 许可, 授權條款, 라이선스, 이용허락, רישיון, رخصة"
)
# Only behind a version: `by` is Belarus there and attribution everywhere else.
_COUNTRY_NAMES = (
    "argentina, australia, austria, österreich, belgium, brazil, brasil, bulgaria, canada, chile, china mainland, "
    "china, colombia, costa rica, croatia, czech republic, denmark, ecuador, egypt, england wales, estonia, finland, "
    "france, germany, deutschland, greece, guatemala, hong kong, hungary, igo, intergovernmental organizations, "
    "india, ireland, israel, italy, italia, japan, korea, south korea, luxembourg, macedonia, malaysia, malta, "
    "mexico, netherlands, nederland, new zealand, norway, norge, peru, philippines, poland, polska, portugal, "
    "puerto rico, romania, scotland, serbia, singapore, slovenia, south africa, spain, españa, sweden, sverige, "
    "switzerland, schweiz, suisse, taiwan, thailand, uganda, uk, united kingdom, united states, usa, venezuela, vietnam"
)
_VERSION = re.compile(r"v?([1-4])([015]?)(?![0-9])")
# Where licences were ported to; not every code of a country, for `nc` behind a version is no New Caledonia.
_COUNTRY_CODE = re.compile(
    r"igo|scotland|a[mrtuz]|b[egr]|c[ahlnorz]|d[ek]|e[cegs]|f[ir]|g[bert]|h[kru]|i[elnt]|jp|kr|lu|m[ktxy]|n[loz]|"
    r"p[ehlrt]|r[os]|s[egi]|t[hw]|u[gks]|v[en]|za"
)
_ZERO = re.compile(
    r"(?:cc|creativecommons)*(?:0|zero)(?:v?10?)?(?:universal\w*)?(?:cc0(?:10)?)?(?:publicdomain(?:dedication)?)?"
)
_MARK = re.compile(r"(?:cc|creativecommons)?(?:pdm|publicdomainmark)(?:10)?(?:universal)?")


def deed_of_name(name: str) -> tuple[tuple[str, ...], str, str] | None:
    """Returns (elements, version, country) of a name such as `CC BY-NC 3.0 DE`, None when it names no deed.

    Without `CC` or `Creative Commons` before it, a name must say more than the one word attribution.
    """
    key = reduced(name)
    elements, is_named, version, country = set(), False, "", ""
    position = 0
    words = _words()
    while position < len(key):
        match = words.match(key, position)
        if number := _VERSION.match(key, position):
            if version:
                return None
            version, match = f"{number[1]}.{number[2] or '0'}", number
        elif version and (code := _COUNTRY_CODE.fullmatch(key, position)):
            country, match = code.group(), code
        elif version and (named := _countries().match(key, position)):
            match = named
        elif match is None:
            return None
        elif meaning := _meanings()[match.group()]:
            is_named = is_named or meaning == "cc"
            elements.update({meaning} - {"cc"})
        position = match.end()
    if not elements or not (is_named or version or len(elements) > 1 or elements & {"nc", "nd"}):
        return None
    return tuple(sorted(elements)), version, country


def waiver_of_name(name: str) -> str:
    """Returns `CC0-1.0` or `CC-PDM-1.0` for a name of the waiver or the mark, "" for any other."""
    key = reduced(name)
    return "CC0-1.0" if _ZERO.fullmatch(key) and key[0] == "c" else "CC-PDM-1.0" if _MARK.fullmatch(key) else ""


@functools.cache
def _meanings() -> dict[str, str]:
    """Returns reduced word → element, `cc`, or "" for words that say nothing."""
    listed = {**_ELEMENTS, "cc": _COMMONS, "": _SAYS_NOTHING}
    return {reduced(word): meaning for meaning, words in listed.items() for word in words.split(", ")} | {"": ""}


@functools.cache
def _words() -> re.Pattern[str]:
    """Compiles the words of names, longer ones first."""
    return _alternatives(_meanings())


@functools.cache
def _countries() -> re.Pattern[str]:
    """Compiles the names of countries."""
    return _alternatives({reduced(name): "" for name in _COUNTRY_NAMES.split(", ")})


def _alternatives(words: dict[str, str]) -> re.Pattern[str]:
    return re.compile("|".join(re.escape(word) for word in sorted(words, key=len, reverse=True) if word))
