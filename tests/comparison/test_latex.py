"""A comparison as tables for a paper."""

import re
import shutil
import subprocess

import pytest

from amtml_pl.comparison.latex import latex
from study import problems_in, write_run

PDFLATEX = shutil.which("pdflatex")


def test_latex_is_a_booktabs_table_whose_text_is_escaped(problems):
    text = latex(problems, "test/acc")
    numbers = r"0.9300 $\pm$ 0.0265 & [0.8643, 0.9957] & $+$0.0300 $\pm$ 0.0153 & 0.1885 (n = 3) & 0.1885 \\"
    assert rf"avg loss=[a\_b\textbar{{}}c,50\%] & 3 & {numbers}" in text
    for line in (r"\toprule", r"\midrule", r"\bottomrule", r"\begin{tabular}{lrrrrrr}"):
        assert text.count(line) == 1


def test_latex_has_signs_and_powers_as_a_paper_has_them(tmp_path):
    for seed in range(6):
        for method, accuracy in {"ce": 0.9, "avg": 0.7 + 0.00005 * seed}.items():
            typed = f"method={method} data.views=-1"
            write_run(tmp_path / f"{method}{seed}", "x-1", seed, accuracy, typed=typed)
    text = latex(problems_in(tmp_path, "ce"), "test/acc")
    assert re.search(r"avg & 6 & .* & \$-\$0\.1999 .* & \$\d\\cdot10\^{-1\d}\$ \(n = 6\) & \$\d\\cdot", text)
    assert "views=$" not in text  # of numbers only


def test_latex_has_one_legend_and_a_label_per_table(tmp_path):
    for number in (1, 2, 3):
        write_run(tmp_path / str(number), "digits", 0, 0.9, student={"network": "Net", "parameters": number})
    text = latex(problems_in(tmp_path), "test/acc")
    labels = re.findall(r"\\label{(.*)}", text)
    assert labels == [f"tab:digits-dddddddd-net-with-{n}-parameters" for n in (1, 2, 3)]
    assert text.count("standard deviation over the n seeds") == 1
    assert text.count(rf"The columns are explained in Table~\ref{{{labels[0]}}}.") == 2
    assert text.count("Do not compare this table with the others") == 3


def test_latex_marks_an_unequal_budget(tmp_path):
    for method, epochs in {"ce": 8, "avg": 8, "dml": 24}.items():
        write_run(tmp_path / method, "digits", 0, 0.9, typed=f"method={method}", budget={"epochs": epochs})
    text = latex(problems_in(tmp_path), "test/acc")
    assert r"dml$^\dagger$ & 1" in text
    assert text.count(r"$^\dagger$") == 2  # in the row and in the caption


def test_the_caption_has_the_digest_only_to_separate_two_tables(tmp_path):
    write_run(tmp_path / "a", "digits", 0, 0.9, student={"network": "Net", "parameters": 1})
    text = latex(problems_in(tmp_path), "test/acc")
    assert r"\caption{digits, Net with 1 parameters: test/acc.}" in text
    assert "% digits (dddddddd), Net with 1 parameters" in text.splitlines()
    write_run(tmp_path / "b", "digits", 0, 0.9, student={"network": "Net", "parameters": 1}, digest="e" * 64)
    assert r"\caption{digits (eeeeeeee), Net" in latex(problems_in(tmp_path), "test/acc")


@pytest.mark.skipif(PDFLATEX is None, reason="needs pdflatex (apt-get install texlive)")
def test_latex_fits_a_column_with_long_and_odd_names(tmp_path):
    for k in (1, 2, 3):
        typed = f"student=wrn_16_2 augment=randaugment_erasing coef.hint={k} teacher=[resnet20,resnet32,vgg8]"
        write_run(tmp_path / f"long{k}", "digits", 0, 0.9, typed=typed + " x=1" * (k == 2))
        write_run(tmp_path / f"odd{k}", f"[{'*#$%^&_~<>|' * k}", 0, 0.9, digest="e" * 64)
    (tmp_path / "report.tex").write_text(latex(problems_in(tmp_path), "test/acc", ["a\nb: cut"]))
    (tmp_path / "paper.tex").write_text(
        r"\documentclass[twocolumn]{article}\usepackage{booktabs,graphicx}\begin{document}\input{report}\end{document}"
    )
    done = subprocess.run(
        [PDFLATEX, "-interaction=nonstopmode", "-halt-on-error", "paper.tex"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Overfull" not in done.stdout
