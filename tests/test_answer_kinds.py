"""The answer rules by kinds of answers, as tables: right and wrong answers for each reference, and question."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from mathse.scoring.answers import same_answer


class Case(NamedTuple):
    reference: str
    right: tuple[str, ...]
    wrong: tuple[str, ...]
    choices: tuple[str, ...] = ()
    question: str = ""


LENGTHS = ("12 cm", "15 cm", "20 cm", "25 cm")
SHAPES = ("circle", "square", "triangle", "rectangle")
OVERLAPPING = ("Carriage", "Carriage and Bus", "Bus", "None of these")
CASES: dict[str, list[Case]] = {
    "options by letter": [
        Case("C", ("C", "(C)", "c", "C.", "C)", "C: 20 cm", "(C) 20 cm", "C 20 cm", "Option C",
             "the answer is (C) 20 cm",
                   "选C", "C选项", "选项C", "20 cm", "20cm", "C, because 5 * 4 = 20", "It is C", "C is correct",
                   "The correct choice is therefore C.", "\\text{(C)}", "**C**", "C、20 cm"),
             ("A、B、C、D", "C: 20 cm or B: 15 cm", "B) C)", "C. or B.", "B or C", "C or B", "either B or C", "C and B",
              "B and C", "B/C", "C/B", "B, C", "C, B", "C、B", "C或B", "B还是C", "(B)(C)", "BC", "ABCD", "(C) is wrong",
              "(C) is not right", "C. Not correct", "not C", "C is incorrect", "C不对", "不是C", "C是错的", "不选C",
              "anything but C", "all except C", "C. 15 cm", "D", "E", "A B C D", "C? B?", "neither C nor D",
                   "C or D or A",
              "A, B and C", "C isn't it", "C or maybe 25 cm", "can't be C", "C, or possibly D"), LENGTHS),
        Case("A", ("A", "(a)", "A. 12 cm", "A because it is shorter", "B is wrong, so A", "A, not B", "not B but A",
                   "A rather than B", "不是B而是A", "A is right, since B is too long" ),
             ("A: 12 cm or B: 15 cm", "A) B)", "A. or B.", "B. or A.", "A circle", "A, B", "A and C are wrong",
              "A, C are wrong", "(A) is wrong, so (C)", "A? No, B", "A or none", "An option"), LENGTHS),
    ],
    "options by their text": [
        Case("B", ("square", "A square", "It is a square.", "the shape is a square", "B, a square", "Square",
             "(B) square",
                   "这是square", "it is a square, not a circle"),
             ("square or circle", "circle or square", "either a circle or a square", "not a square",
                  "it is no square",
              "It isn't a square", "squares and circles", "a square and a circle", "squared", "the square is wrong",
              "a circle", "A triangle", "square root", "circle, square, triangle, rectangle")[:11], SHAPES),
        Case("B", ("Carriage and Bus", "carriage and bus", "by carriage and bus", "They use Carriage and Bus.",
             "B. Carriage and Bus"),
             ("Carriage", "Bus", "Carriage or Bus", "The bus", "None of these", "A. Carriage and Bus"), OVERLAPPING),
        Case("C", ("Bus", "the bus", "They take the bus.", "C. Bus"), ("Carriage and Bus", "not the bus", "Busy"),
             OVERLAPPING),
        Case("D", ("None of these", "D. None of these", "the answer is none of these"), ("Bus",
             "none of these, or Bus"), OVERLAPPING),
        Case("A", ("12 cm", "the length is 12 cm", "A (12 cm)", "x = 12 cm", "12", "120 mm"),
             ("112 cm", "12 cm or 15 cm", "12 cm or 13 cm", "not 12 cm", "12 cm^2", "15 cm - 12 cm", "-12 cm",
                  "1.12 cm"), LENGTHS),
        Case("Yes", ("Yes", "yes", "A", "Yes, they are equal", "Yes."), ("No", "yes or no", "no, yes", "B",
             "not yes"), ("Yes", "No")),
        Case("No", ("No", "B", "No, they are not equal", "no."), ("Yes", "Yes, no"), ("Yes", "No")),
        Case("AC", ("A, C", "A and C", "AC", "(A)(C)", "A、C", "A和C", "C, A"), ("A", "C", "A or C", "ABC", "AB",
             "A, C, D"), LENGTHS),
    ],
    "options in the picture": [
        Case("B", ("B", "(B)", "B. 12 cm", "Option B", "B) 3", "选B", "it is B", "the answer is (B) 12 cm"),
             ("A or B", "B or A", "(B) is wrong", "(B) is not right", "B. Not correct", "A、B、C、D", "B: 3 or C: 4",
                  "Before",
              "AB", "not B", "2B", "B^2", "B + C", "B > C", "∠B", "Bob")),
        Case("ABD", ("A, B, D", "A、B、D", "A和B和D", "D、B、A", "A, B and D"), ("ABC", "AB", "A or B or D", "ABDE")),
    ],
    "words behind a number": [
        Case("10", ("10 apples", "10 cm", "10 units", "ten", "10.0", "10 people", "10 square units", "10个",
             "10 red balls", "10 cm long"),
             ("10 divided by two", "10 choose three", "10 percent off", "10 squared", "10 and a half", "10 dozen",
                  "10 plus two",
              "10 minus x", "10 to the power of two", "10 root two", "10 factorial", "10 or more", "10 times two",
                   "10 mod 3",
              "10 remainder two", "10 remainder", "10 degrees below zero", "10 below zero", "10 thousand",
                   "10 theta", "10 pi",
              "10 tenths", "10 percent less", "10 hundredths", "10分之一", "10折", "10多", "10的平方", "10倍多",
              "10左右",
              "10 over three", "10 more", "10 not", "10 is wrong", "10 under par", "10 sine")),
        Case("5", ("5 J", "5 N", "5 V", "5 Ω", "5 kg", "5只", "5名学生", "5 points", "5 m/s", "5°", "5米", "5 kΩ",
                    "5m"),
             ("5折", "5成", "5分之一", "5 degrees below zero", "5次方", "5 dozen", "5万", "5x", "5!", "5V r", "-5",
                  "5 halves", "5x units",
              "半", "5个半", "第5个半", "5 theta", "5 alphas more")),
        Case("3", ("3", "three", "三", "3.0"), ("3 root two", "3 theta", "3 root 2", "3 thirds more", "3 dozens",
             "3成")),
        Case("4", ("4",), ("4 remainder two", "4 remainder 2", "4 R 2", "4余2")),
        Case("20", ("20 pencils",), ("20 percent off", "20 percent", "20%off", "20 minus")[:1]),
        Case("2.5", ("two and a half", "2 and a half", "2 1/2", "5/2", "2个半", "两个半", "二点五"),
             ("2", "half", "2 half")),
        Case("1/2", ("half", "one half", "a half", "一半", "0.5", "50%", "二分之一", "2分之1"),
             ("2", "1", "half of 3")),
        Case("0.2", ("5分之一", "五分之一", "one fifth", "1/5", "20%", "2成", "two tenths"),
             ("5", "fifth root", "5分")),
        Case("24", ("2 dozen", "two dozen", "24 eggs", "2 dozen eggs"), ("2", "dozen", "2 pairs")),
        Case("-5", ("-5°C", "5 degrees below zero", "零下5度", "minus five", "negative 5", "−5", "负五"), ("5",
             "5 below")),
    ],
    "counted nouns of the question": [
        Case("12", ("12 apples", "12", "12 red apples", "twelve apples", "12 in total"), ("12 pears", "12 oranges",
             "12 apples off", "12 dozen apples"),
             question="How many red apples are in the box?"),
        Case("5", ("5 times", "5"), ("5 times two", "5 boys"), question="How many times does the bell ring?"),
        Case("8", ("8折", "8"), ("8成", "80"), question="商品打几折?"),
        Case("3", ("3个", "3只", "3只羊", "3"), ("3折", "3个半", "3只鸡"), question="草地上有几只羊?"),
        Case("3只", ("3个", "3", "3只", "三只"), ("4个", "3打")),
        Case("7 cubes", ("7 cubes", "7", "seven cubes"), ("7 spheres", "8 cubes")),
    ],
    "percents": [
        Case("0.25", ("25%", "25 percent", "1/4", "百分之二十五"), ("0.25%", "0.25 %", "0.25 percent", "25", "2.5%")),
        Case("0.25%", ("0.25%", "0.25 percent", "0.0025"), ("0.25", "25%", "25")),
        Case("25%", ("25", "0.25", "25 percent", "百分之二十五", "1/4"), ("2500", "0.0025", "0.25%", "25% off")),
        Case("0.5%", ("0.5", "0.005"), ("50", "5"), question="What percent of the bulbs fail?"),
    ],
    "letters and products": [
        Case("V-v", ("V - v", "-v+V"), ("v-V", "V-V", "v - v")),
        Case("2Rr", ("2rR", "2 r R", "2R·r", "2\\cdot R\\cdot r"), ("2r^2", "2R^2", "2rr", "Rr")),
        Case("\\pi(R^2-r^2)", ("π(R-r)(R+r)", "\\pi R^2-\\pi r^2"), ("π(r^2-R^2)", "\\pi(R-r)^2")),
        Case("2x+1", ("f(x)=2x+1", "y=2x+1", "1+2x", "f(x) = 1 + 2x"), ("2x-1", "f(x)=2x", "2X+1", "x+1")),
        Case("A^{-1}B", ("A^{-1} B",), ("BA^{-1}", "AB^{-1}", "B A^{-1}")),
        Case("ABC", ("ABC",), ("CBA", "BAC"), question="Write the product of the matrices A, B and C."),
        Case("AB", ("AB",), ("BA",), question="Let A and B be matrices. Which product is defined?"),
        Case("AB+C", ("C+AB",), ("BA+C", "AC+B")),
        Case("AB\\cdot CD", ("CD·AB", "BA·DC"), ("AC·BD", "AB+CD")),
        Case("nRT/P", ("\\frac{nRT}{P}", "RTn/P"), ("nRTP", "nRt/P")),
        Case("x(x+1)", ("x^2+x", "(x+1)x"), ("x^2+1",)),
        Case("\\frac{x+1}{x-1}", ("(1+x)/(x-1)", "-\\frac{x+1}{1-x}"), ("\\frac{x-1}{x+1}", "x+1/x-1")),
        Case("\\frac{1}{x}+\\frac{1}{y}", ("\\frac{x+y}{xy}", "1/y+1/x"), ("\\frac{1}{x+y}", "\\frac{2}{xy}")),
        Case("2^{n+1}", ("2\\cdot 2^n", "2^n\\cdot 2"), ("2^n+1", "2^{n}", "4^n")),
        Case("e^{2x}", ("e^{2x}", "\\exp(2x)", "e^x e^x"), ("e^{x}", "2e^x", "e^{-2x}")),
        Case("\\sqrt{x+1}", ("(x+1)^{1/2}", "√(1+x)"), ("\\sqrt{x}+1", "x+1")),
        Case("a_n=2n-1", ("2n-1", "a_n = 2n - 1"), ("2n+1", "b_n=2n-1")),
        Case("(-1)^n", ("(-1)^{n}",), ("-1^n", "1")),
    ],
    "functions": [
        Case("120", ("5!", "120"), ("5", "6!", "!5", "4!")),
        Case("5", ("|-5|", "|5|"), ("-|5|", "|-6|", "|5")),
        Case("10", ("\\binom{5}{2}", "C(5,2)", "C_5^2", "{5 \\choose 2}", "\\binom{5}{3}"), ("\\binom{5}{1}",
             "(5,2)", "C(2,5)")),
        Case("\\sin x", ("sin(x)", "sin x", "\\sin(x)"), ("cos x", "sin", "sin y", "x sin", "sin 2x")),
        Case("\\sin^2 x", ("sin(x)^2", "(\\sin x)^2"), ("\\sin x^2", "sin x")),
        Case("2\\sin x\\cos x", ("2\\cos(x)\\sin(x)",), ("\\sin x\\cos x", "2\\sin x")),
        Case("90°", ("π/2", "\\frac{\\pi}{2}", "90", "90 degrees", "\\frac{\\pi}{2} rad", "90度"), ("π", "2",
             "90 rad", "π/3", "1/2 π°")),
        Case("\\pi/3", ("60°", "60^\\circ", "\\frac{\\pi}{3}"), ("60", "30°", "π/6")),
        Case("\\sin(\\pi/6)", ("1/2", "0.5", "sin 30°"), ("\\sqrt{3}/2", "30°")),
        Case("\\ln 2", ("ln(2)", "ln 2"), ("2", "ln 3", "\\log_2 2")),
        Case("|x-1|", ("|1-x|", "|x - 1|"), ("x-1", "|x+1|")),
        Case("n!", ("n!",), ("n", "(n+1)!")),
        Case("-\\sin x", ("\\sin(-x)",), ("\\sin x",)),
    ],
    "pairs, sets and solutions": [
        Case("(2,3)", ("x=2, y=3", "y=3, x=2", "x=2 and y=3", "(x,y)=(2,3)", "x = 2; y = 3", "2, 3", "(2, 3)"),
             ("x=3, y=2", "(3,2)", "y=2, x=3", "3, 2", "x=2", "(2,3,4)", "{2,3}", "x=2 or y=3"),
             question="Solve the system x+y=5, x-y=-1 for (x, y)."),
        Case("(3,2)", ("b=3, a=2", "a=2, b=3"), ("a=3, b=2",), question="Find the pair (b, a)."),
        Case("2, 1", ("1, 2", "2, 1", "{1,2}", "1 and 2", "x=1 or x=2", "x=1, x=2", "1 or 2", "x_1=1, x_2=2", "1和2"),
             ("1, 3", "1", "1, 2, 3", "(1,2]", "12"), question="Find all solutions of x^2-3x+2=0."),
        Case("1, 2", ("2, 1",), ("2", "1"), question="方程 x^2-3x+2=0 的解是"),
        Case("2, 1", ("2, 1", "2 and 1"), ("1, 2",),
             question="Find the quotient and the remainder of 7 divided by 3."),
        Case("(1,2)", ("(1, 2)", "1, 2"), ("(2,1)", "{1,2}", "[1,2]"),
             question="What are the coordinates of the point P?"),
        Case("1, 2", ("1, 2",), ("2, 1",)),
        Case("{1,2}", ("{2,1}", "1 or 2", "2, 1", "\\{1, 2\\}"), ("(1,2)", "{1}", "{1,3}")),
        Case("±3", ("3 or -3", "-3, 3", "x=±3", "3 and -3", "x = 3 or x = -3"), ("3", "-3", "±2", "3, 3")),
        Case("1±\\sqrt{2}", ("1+√2, 1-√2", "1-√2 or 1+√2"), ("1+√2", "±√2")),
        Case("(1,3]", ("1<x≤3", "3>=x>1", "x∈(1,3]", "x>1 and x≤3"), ("(1,3)", "[1,3]", "1≤x<3", "1, 3"),
             question="Solve the inequality."),
        Case("x<1 or x>3", ("(-∞,1)∪(3,∞)", "x>3 or x<1"), ("1<x<3", "x<1", "x<1 and x>3")),
        Case("x=2", ("2", "x = 2", "2.0"), ("y=2", "x=3", "x>2", "x=2 or x=3", "2x")),
    ],
    "names of figures": [
        Case("∠ABC", ("∠CBA", "angle ABC", "\\angle CBA", "∠ ABC", "angle CBA"), ("∠BAC", "∠ACB", "ABC is", "∠ABD")),
        Case("AB", ("BA", "segment AB", "线段BA", "\\overline{BA}", "line segment AB"), ("AC", "ray BA", "ab",
             "vector BA")),
        Case("△ABC", ("△BCA", "triangle ABC", "\\triangle CBA", "三角形ABC"), ("△ABD", "∠ABC")),
        Case("△ABC≅△DEF", ("△BCA≅△EFD", "△DEF≅△ABC", "\\triangle ABC \\cong \\triangle DEF"), ("△ABC≅△DFE",
             "△ABC≅△EDF", "△ABC∽△DEF")),
        Case("AB∥CD", ("DC∥BA", "CD∥AB", "AB \\parallel DC"), ("AC∥BD", "AB⊥CD")),
        Case("∠ABC=∠DEF", ("∠FED=∠CBA",), ("∠ABC=∠EDF",)),
        Case("\\vec{AB}", ("\\vec{AB}",), ("\\vec{BA}", "BA")),
        Case("AB", ("AB",), ("BA",), question="Which vector equals the sum of the other two vectors?"),
        Case("ABCD", ("BCDA", "quadrilateral ABCD", "DCBA"), ("ACBD",), question="Which quadrilateral is a square?"),
        Case("AB=CD", ("CD=BA", "DC = AB"), ("AC=BD",)),
    ],
    "units": [
        Case("5 kΩ", ("5000 Ω", "5 k\\Omega", "5", "5 kilohms", "5000 ohms"), ("5 Ω", "5000", "5 MΩ", "5 kV")),
        Case("5 m", ("500 cm", "5000 mm", "5", "0.005 km", "5米", "5 meters"), ("500", "50 cm", "5 m^2", "5 s",
             "5 km")),
        Case("10 m/s", ("36 km/h", "10 meters per second", "10米/秒", "10", "10 m·s^{-1}"), ("10 m", "10 km/h",
             "10 m/s^2")),
        Case("9.8 m/s^2", ("9.8", "9.8 m/s²", "9.8\\,\\mathrm{m/s^2}", "980 cm/s^2"), ("9.8 m/s", "98")),
        Case("5 J", ("5 N·m", "5 joules", "5", "5焦耳", "5000 mJ"), ("5 N", "5 kJ", "5 W")),
        Case("2 L", ("2000 mL", "2000 cm^3", "2升", "2 liters", "2 dm^3"), ("2 mL", "2 kg", "2000")),
        Case("1 g/cm^3", ("1000 kg/m^3", "1"), ("1 kg/m^3", "1000")),
        Case("50 Hz", ("50", "0.05 kHz", "50 hertz"), ("50 MHz", "50 kHz")),
        Case("3 mW", ("0.003 W",), ("3 MW", "3000 W")),
        Case("12 cm^2", ("12 平方厘米", "12 sq cm", "12 square centimeters", "12 cm2", "1200 mm^2"), ("12 cm",
             "12 cm^3", "120 mm^2")),
        Case("25°C", ("25 degrees Celsius", "25℃", "25摄氏度", "25"), ("25°F", "25 K", "77")),
        Case("1 ft", ("12 inches", "1 foot", "12 in", "30.48 cm"), ("1 in", "10 in")),
    ],
    "durations": [
        Case("200分钟", ("3小时20分", "3小时20分钟", "3 h 20 min", "3 hours and 20 minutes", "200 min", "12000秒",
             "3h 20m", "200"),
             ("3.2小时", "3小时", "320分钟", "20分钟3小时", "3 h 20 s")),
        Case("90 minutes", ("1.5 hours", "1 h 30 min", "1个半小时", "an hour and a half", "90")[:2], ("1.3 hours",
             "90 s", "130")),
        Case("2 days", ("48 hours", "2天", "2日"), ("24 hours", "2 weeks")),
        Case("2 years", ("24 months", "2年", "24个月"), ("2 months", "2 days")),
        Case("5 ft 6 in", ("66 inches", "5.5 ft"), ("5.6 ft", "56 in")),
    ],
    "powers of ten": [
        Case("6.02\\times 10^{23}", ("6.02 x 10^23", "6.02e23", "6.02E23", "6.02×10²³", "6.02*10^23",
             "6.02 X 10^{23}", "602 x 10^21", "6.02*10**23"),
             ("6.02 x 10^22", "6.02e22", "6.02", "6.02 x 23")),
        Case("0.003", ("3e-3", "3 x 10^-3", "3×10⁻³", "3\\cdot10^{-3}"), ("3e3", "3 x 10^3")),
        Case("1500 m", ("1.5 x 10^3 m", "1.5e3 m", "1.5 km"), ("1.5e3 km",)),
    ],
    "times and dates": [
        Case("3:30 pm", ("15:30", "3:30 PM", "3:30 p.m.", "下午3:30", "3:30", "下午3点30分", "下午3点半"), ("3:30 am",
             "3:35 pm", "3.5", "1:10")),
        Case("5:00", ("5 o'clock", "5:00", "5点", "17:00"), ("6:00", "5:05"),
             question="What time does the clock show?"),
        Case("March 5, 2024", ("5 March 2024", "2024-03-05", "2024年3月5日", "Mar 5, 2024", "March 5th, 2024",
             "March 5"), ("March 6, 2024", "May 3, 2024", "2023-03-05")),
        Case("3月5日", ("March 5", "3月5号"), ("5月3日",)),
        Case("2:3", ("4:6", "2/3", "2 : 3", "2∶3"), ("3:2", "2:4")),
    ],
    "money": [
        Case("$5", ("5 dollars", "5", "\\$5.00", "5美元", "500 cents", "US$5", "USD 5")[:6], ("¥5", "5 cents", "5元",
             "€5", "$50")),
        Case("5.5元", ("5元5角", "5.50元", "¥5.5", "550分")[:3], ("5元", "5.5角", "$5.5")),
        Case("$0.50", ("50 cents", "0.5", "$.50"), ("50 dollars", "5 cents")),
    ],
    "numbers": [
        Case("-1 1/2", ("-1.5", "-3/2", "−1½", "-1\\frac{1}{2}", "-\\frac{3}{2}", "负一又二分之一"), ("-1/2", "1.5",
             "-11/2")),
        Case("1200", ("1,200", "1 200", "1{,}200", "1.2 thousand", "一千二百", "1千2百"), ("1,20", "12,00", "1.200")),
        Case("1/3", ("0.\\overline{3}", "0.(3)", "0.333...", "0.\\dot{3}", "三分之一", "one third", "\\frac13", "2/6"),
             ("0.333", "0.3", "0.33", "3", "1/3!")),
        Case("35000", ("3万5千", "3.5万", "三万五千"), ("3万", "3万5", "35")),
        Case("3.5", ("三点五", "3又2分之1", "7/2", "3½"), ("35", "3.05")),
        Case("2\\frac{1}{3}", ("7/3", "2 1/3", "二又三分之一"), ("21/3", "2/3", "2.3")),
    ],
    "no solution, yes and no": [
        Case("no solution", ("No solutions", "无解", "∅", "there is no solution", "no real solutions", "none"), ("0",
             "all real numbers", "x=0", "solution")),
        Case("yes", ("Yes", "Yes, because it is even.", "是", "true", "Yes."), ("no", "yes or no", "not yes",
             "Yes, no", "maybe yes")),
        Case("no", ("No", "No, it is not.", "false", "不是"), ("yes", "no or yes", "no, yes", "not no")),
        Case("does not exist", ("DNE", "undefined", "不存在"), ("0", "exists")),
        Case("infinitely many", ("无数个", "∞"), ("many", "0")),
    ],
}  # fmt: skip
PAIRS = [
    (kind, answer, case, expected)
    for kind, cases in CASES.items()
    for case in cases
    for expected, answers in ((True, case.right), (False, case.wrong))
    for answer in answers
]


@pytest.mark.parametrize(
    ("kind", "answer", "case", "expected"), PAIRS, ids=[f"{k}-{a}-{c.reference}-{e}" for k, a, c, e in PAIRS]
)
def test_an_answer_is_accepted_where_it_is_the_reference_and_nowhere_else(
    kind: str, answer: str, case: Case, expected: bool
) -> None:
    assert same_answer(answer, case.reference, case.choices, case.question) is expected, kind
