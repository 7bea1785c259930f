"""Numbers in groups of every kind, and e-mail before odd hosts: found whole, and nothing of them is left."""

import pytest

from apertus_jax.corpus.personal_data.checks import is_iban
from apertus_jax.corpus.personal_data.policy import PersonalDataPolicy
from apertus_jax.corpus.personal_data.rewriting import rewrite

POLICY = PersonalDataPolicy()
IBANS = ("CH9300762011623852957", "DE89370400440532013000", "GB82WEST12345698765432", "NO9386011117947")
GAPS = ("", " ", "  ", "\t", "\u00a0", "-", ".", "_", "/", "\n", "\r\n", " \n", "\t ")


def rewritten(value: str) -> str:
    return rewrite(f"Pay to {value}, please.", POLICY).text


@pytest.mark.parametrize("gap", GAPS)
@pytest.mark.parametrize("size", [2, 3, 4, 6, 10])
def test_an_account_number_is_found_in_any_grouping(gap, size):
    for number in IBANS:
        assert is_iban(number)
        rest = number[4:]
        groups = [number[:4], *(rest[start : start + size] for start in range(0, len(rest), size))]
        if len(groups) <= 10:
            assert rewritten(gap.join(groups)) == "Pay to <iban-pii>, please.", groups


def test_an_account_number_is_found_behind_a_parted_country():
    assert rewritten("CH 93 0076 2011 6238 5295 7") == "Pay to <iban-pii>, please."


@pytest.mark.parametrize("gap", GAPS)
def test_groups_with_a_wrong_check_digit_stay(gap):
    for number in IBANS:
        wrong = number[:-1] + str((int(number[-1]) + 1) % 10)
        spaced = gap.join(wrong[start : start + 4] for start in range(0, len(wrong), 4))
        assert rewritten(spaced) == f"Pay to {spaced}, please."


@pytest.mark.parametrize("gap", ["\t", ".", "_", "/", "-", " "])
def test_a_card_number_is_found_between_any_separators(gap):
    assert rewritten(gap.join(("4111", "1111", "1111", "1111"))) == "Pay to <card-pii>, please."
    assert rewritten(gap.join(("3782", "822463", "10005"))) == "Pay to <card-pii>, please."


@pytest.mark.parametrize("value", ["756\t1234\t5678\t97", "AHV756.1234.5678.97", "AVS7561234567897"])
def test_an_insurance_number_is_found_in_tables_and_words(value):
    assert rewritten(value).removeprefix("Pay to ").lstrip("AHVS") == "<ahv-pii>, please."


@pytest.mark.parametrize(
    "value", ["anna@127.1", "anna@127.0.1", "anna@sub_domain.example.org", "anna@a__b.example.org"]
)
def test_an_address_before_an_odd_host_is_found_whole(value):
    assert rewritten(value) == "Pay to <email-pii>, please."


@pytest.mark.parametrize("value", ["react@18.2", "puppeteer@127.1.2.3.4", "foo@127", "lodash@4.17.21"])
def test_a_version_is_no_host(value):
    assert rewritten(value) == f"Pay to {value}, please."
