"""Language codes: ISO 639-1 and 639-3, macrolanguages, the scripts of languages, labels `iso639-3_Script`."""

from __future__ import annotations

import functools
import re

_PAIRS = (
    "aa:aar ab:abk ae:ave af:afr ak:aka am:amh an:arg ar:ara as:asm av:ava ay:aym az:aze ba:bak "
    "be:bel bg:bul bi:bis bm:bam bn:ben bo:bod br:bre bs:bos ca:cat ce:che ch:cha co:cos cr:cre "
    "cs:ces cu:chu cv:chv cy:cym da:dan de:deu dv:div dz:dzo ee:ewe el:ell en:eng eo:epo es:spa "
    "et:est eu:eus fa:fas ff:ful fi:fin fj:fij fo:fao fr:fra fy:fry ga:gle gd:gla gl:glg gn:grn "
    "gu:guj gv:glv ha:hau he:heb hi:hin ho:hmo hr:hrv ht:hat hu:hun hy:hye hz:her ia:ina id:ind "
    "ie:ile ig:ibo ii:iii ik:ipk io:ido is:isl it:ita iu:iku ja:jpn jv:jav ka:kat kg:kon ki:kik "
    "kj:kua kk:kaz kl:kal km:khm kn:kan ko:kor kr:kau ks:kas ku:kur kv:kom kw:cor ky:kir la:lat "
    "lb:ltz lg:lug li:lim ln:lin lo:lao lt:lit lu:lub lv:lav mg:mlg mh:mah mi:mri mk:mkd ml:mal "
    "mn:mon mr:mar ms:msa mt:mlt my:mya na:nau nb:nob nd:nde ne:nep ng:ndo nl:nld nn:nno no:nor "
    "nr:nbl nv:nav ny:nya oc:oci oj:oji om:orm or:ori os:oss pa:pan pi:pli pl:pol ps:pus pt:por "
    "qu:que rm:roh rn:run ro:ron ru:rus rw:kin sa:san sc:srd sd:snd se:sme sg:sag sh:hbs si:sin "
    "sk:slk sl:slv sm:smo sn:sna so:som sq:sqi sr:srp ss:ssw st:sot su:sun sv:swe sw:swa ta:tam "
    "te:tel tg:tgk th:tha ti:tir tk:tuk tl:tgl tn:tsn to:ton tr:tur ts:tso tt:tat tw:twi ty:tah "
    "ug:uig uk:ukr ur:urd uz:uzb ve:ven vi:vie vo:vol wa:wln wo:wol xh:xho yi:yid yo:yor za:zha "
    "zh:zho zu:zul "
)
ISO_639_3 = dict(pair.split(":") for pair in _PAIRS.split())


def three_letter_code(code: str) -> str:
    """Returns the ISO 639-3 code of a BCP-47 language code: variants are cut off, two letters become three.

    Macrolanguage codes stay what they are (`zh` gives `zho`, not `cmn`).
    """
    primary = code.split("-")[0].split("_")[0]
    return ISO_639_3.get(primary, primary)


# Scripts that Unicode does not tell apart from another, or that only name a mixture, and what labels call them.
_SCRIPT_PAIRS = (
    "Hans:Hani Hant:Hani Hanb:Hani Bopo:Hani Kore:Hang Jamo:Hang Hira:Jpan Kana:Jpan Hrkt:Jpan Aran:Arab Latf:Latn "
    "Latg:Latn Cyrs:Cyrl Syre:Syrc Syrj:Syrc Syrn:Syrc Geok:Geor Egyd:Egyp Egyh:Egyp"
)
_USUAL_SCRIPTS = dict(pair.split(":") for pair in _SCRIPT_PAIRS.split())
# Macrolanguages and the one member that corpora mean by them (GlotLID's labels, FineWeb-2's folders).
_MEMBER_PAIRS = (
    "ara:arb aze:azj bih:bho est:ekk grn:gug kom:kpv kur:kmr lav:lvs mlg:plt mon:khk msa:zsm nep:npi nor:nob ori:ory "
    "orm:gaz pus:pbt que:quy sqi:als swa:swh tgl:fil uzb:uzn yid:ydd zho:cmn"
)
_INDIVIDUAL = dict(pair.split(":") for pair in _MEMBER_PAIRS.split())
_ONE_SCRIPT = {
    "Latn": (
        "afr als arg ast aym bar bcl bre cat cbk ceb ces cor cos cym dan deu diq dsb ekk eml eng epo eus fao "
        "fil fin fra frr fry gaz gla gle glg glv gsw gug hat hrv hsb hun ido ile ilo ina ind isl ita jbo kmr "
        "lat lim lit lmo ltz lvs mlt mwl nah nap nds nld nno nob oci pam pfl plt pms pol por quy roh scn sco "
        "slk slv som spa srd swe swh tur vec vep vie vls vol war wln yor xho zul"
    ),
    "Arab": "arb arz azb ckb fas lrc mzn pbt pnb urd",
    "Cyrl": "ava bak bul bxr che chv khk kpv krc lez mhr mkd mrj myv oss rue rus sah tyv ukr xal",
    "Deva": "bho dty hin mai mar new npi san",
    "Beng": "asm ben bpy",
    "Ethi": "amh tir",
    "Geor": "kat xmf",
    "Hani": "cmn wuu yue",
    "Hebr": "heb ydd",
    "Armn": "hye",
    "Grek": "ell",
    "Gujr": "guj",
    "Guru": "pan",
    "Hang": "kor",
    "Khmr": "khm",
    "Knda": "kan",
    "Laoo": "lao",
    "Mlym": "mal",
    "Mymr": "mya",
    "Orya": "ory",
    "Sinh": "sin",
    "Taml": "tam",
    "Telu": "tel",
    "Thaa": "div",
    "Thai": "tha",
    "Tibt": "bod dzo",
}
_SEVERAL_SCRIPTS = (
    "azj:Latn,Cyrl bel:Cyrl,Latn bos:Latn,Cyrl gom:Deva,Latn hbs:Latn,Cyrl hif:Latn,Deva jav:Latn,Java jpn:Jpan,Hani "
    "kaz:Cyrl,Latn,Arab kir:Cyrl,Latn,Arab min:Latn,Arab ron:Latn,Cyrl snd:Arab,Deva srp:Cyrl,Latn sun:Latn,Sund "
    "tat:Cyrl,Latn tgk:Cyrl,Latn tuk:Latn,Cyrl,Arab uig:Arab,Cyrl,Latn uzn:Latn,Cyrl,Arab zsm:Latn,Arab"
)
_SCRIPTS: dict[str, tuple[str, ...]] = {
    **{language: (script,) for script, languages in _ONE_SCRIPT.items() for language in languages.split()},
    **{entry[:3]: tuple(entry[4:].split(",")) for entry in _SEVERAL_SCRIPTS.split()},
}
UNKNOWN_CODES = ("und", "zxx")  # undetermined, no language; a language without a code (mis) is still one
UNKNOWN_SCRIPT = "Zzzz"
_TAG = re.compile(r"([A-Za-z]{2,3})(?:[-_]([A-Za-z]{4}))?(?:[-_][A-Za-z0-9]+)*")


def usual_script(script: str) -> str:
    """Returns the ISO 15924 code that labels use for a script: Hans and Hant are Hani, Kore is Hang, Hira is Jpan."""
    script = script.capitalize()
    return _USUAL_SCRIPTS.get(script, script)


def individual_language(code: str) -> str:
    """Returns the ISO 639-3 code that labels use: two letters become three, a macrolanguage its usual member."""
    code = three_letter_code(code.lower())
    return _INDIVIDUAL.get(code, code)


def scripts_of(language: str) -> tuple[str, ...]:
    """Returns the scripts in which a language is written, the usual one first; empty where the table is silent."""
    return _SCRIPTS.get(language, ())


def names_language(label: str | None) -> bool:
    """Returns whether a label or tag names a language; `und`, `zxx`, nothing and free text are of unknown language."""
    return bool(label) and language_label(label) != "und"


@functools.lru_cache(maxsize=4096)
def language_label(tag: str, script: str = UNKNOWN_SCRIPT) -> str:
    """Returns the `iso639-3_Script` label of a language tag, or `und` where the tag names no language.

    Takes ISO 639-1, 639-3, BCP-47 and label spellings: `zh-Hant-TW`, `zho_Hans` and `cmn_Hani` are `cmn_Hani`. A tag
    without a script gets `script` (what the text shows) where the language can be written in it, else its usual one.
    """
    match = _TAG.fullmatch(tag.strip())
    if match is None or match[1].lower() in UNKNOWN_CODES:
        return "und"
    language = individual_language(match[1])
    scripts = scripts_of(language)
    written = usual_script(match[2]) if match[2] else script
    if language == "jpn" or (not match[2] and scripts and script not in scripts):
        written = scripts[0]
    return f"{language}_{written}"
