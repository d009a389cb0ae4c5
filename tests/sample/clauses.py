"""The clause bank: phrasings of each CUAD category, written for this repository.

Mark-up of a phrasing:
  [[words]]            a gold span of the phrasing's own category; [[date+eff:words]] names the categories
  <irr|words>          words for contracts with the category; the span around them is then gold for it too
  {a|b|c}              one of these; {P}, {C}, {X}, {days}, ... are filled in (see write_sample.py)
  "#gd words"          only for contract types that carry one of these tags (deals.TYPES)
P is the provider, C its counterparty, X the party under the restriction (insured, audited), Y the other one.
"""

# How the preamble gives the dates: by whether there is a date, an effective date, and whether they agree.
DATELINES = {
    "same": [
        'is {made and entered into|entered into} as of [[date+eff:{date}]] (the "Effective Date")',
        'is made this [[date+eff:{longdate}]] (the "Effective Date")',
        'dated as of [[date+eff:{date}]] (the "Effective Date") is',
    ],
    "both": [
        'is dated [[date:{date}]] and takes effect on [[eff:{eff}]] (the "Effective Date"), and is',
        'is signed on [[date:{date}]], with effect from [[eff:{eff}]] (the "Effective Date"),',
        'is made this [[date:{longdate}]], to be effective [[eff:{eff}]] (the "Effective Date"),',
    ],
    "defined": [
        "is made {as of|on} [[date:{date}]]",
        "is entered into this [[date:{longdate}]]",
        "bears the date [[date:{date}]] and is made",
    ],
    "date": [
        "is {made|entered into|concluded} {as of|on} [[date:{date}]]",
        "is {made|entered into} this [[date:{longdate}]]",
        "is executed and delivered on [[date:{date}]]",
    ],
    "eff": [
        'is {made|entered into} effective as of [[eff:{eff}]] (the "Effective Date")',
        'is made with effect from [[eff:{eff}]] (the "Effective Date")',
    ],
}

PREAMBLES = [
    'This {Doc} (this "Agreement") {dateline} by and between [[parties:{P_full}]], {P_form} with its '
    'principal office in {P_city} ("[[parties:{P}]]"), and [[parties:{C_full}]], {C_form} with its '
    'principal office in {C_city} ("[[parties:{C}]]").',
    'THIS {DOC} (the "Agreement") {dateline} between [[parties:{C_full}]], {C_form} located in {C_city} '
    '(hereinafter "[[parties:{C}]]"), and [[parties:{P_full}]], {P_form} located in {P_city} (hereinafter '
    '"[[parties:{P}]]"). Each of them is called a party and both together the parties.',
    "This Agreement {dateline} among the following parties: (1) [[parties:{P_full}]], {P_form} whose "
    'registered address is in {P_city} (the "[[parties:{P}]]"); and (2) [[parties:{C_full}]], {C_form} '
    'whose registered address is in {C_city} (the "[[parties:{C}]]").',
    '[[parties:{P_full}]] ("[[parties:{P}]]"), {P_form} having its place of business in {P_city}, and '
    '[[parties:{C_full}]] ("[[parties:{C}]]"), {C_form} having its place of business in {C_city}, are the '
    "parties to this instrument. This {Doc} {dateline} between them.",
    'The {Doc} set out below (this "Agreement") {dateline} by [[parties:{P_full}]], {P_form}, of {P_city}, '
    "referred to below as [[parties:{P}]], and by [[parties:{C_full}]], {C_form}, of {C_city}, referred to "
    "below as [[parties:{C}]].",
    'This {Doc}, together with its schedules (collectively, this "Agreement"), {dateline} between the '
    'undersigned, namely [[parties:{C_full}]], {C_form} ("[[parties:{C}]]"), on the one hand, and '
    '[[parties:{P_full}]], {P_form} ("[[parties:{P}]]"), on the other. {C} has its offices in {C_city} and '
    "{P} has its offices in {P_city}.",
]

CLAUSES = {
    "eff": [
        '"Effective Date" means [[{eff}]].',
        'As used in this Agreement, the "Effective Date" is [[{eff}]], whatever the date on which a party signs.',
        'The rights and duties of the parties under this Agreement begin on [[{eff}]] (the "Effective Date").',
        "[[This Agreement becomes effective on {eff}]], which date is called the Effective Date in this Agreement.",
    ],
    "exp": [
        "[[The initial term of this Agreement {shall} begin on {start} and {shall} continue for {years} "
        "years, unless it is ended sooner as this Article allows.]]",
        "[[This Agreement commences on {start} and {shall} remain in force through {endday}.]] The period "
        "so described is the Initial Term.",
        "[[Unless terminated earlier in accordance with its provisions, this Agreement expires on the {nth} "
        "anniversary of {start}<renew+notice|, after which it {shall} renew by itself for further terms of "
        "{months} months each unless a party objects in writing at least {days} days before the term then "
        "running ends>.]]",
        "The parties intend a fixed engagement. [[Accordingly, the term of this Agreement runs from {start} "
        "for a period of {months} months and ends without notice on the last day of that period.]]",
        "[[{P} and {C} {shall} perform this Agreement for a primary term of {years} years counted from "
        "{start}<renew+notice|, and for successive one-year terms afterwards unless either of them gives "
        "notice of non-renewal not less than {days} days ahead of the next anniversary>.]]",
        '[[The "Term" means the period that starts on {start} and closes at midnight on '
        "{endday}<renew+notice|, together with each renewal of {ryears} years, which follows unless {C} "
        "declines it by a notice given {days} days before it starts>.]]",
        "[[Subject to prior termination for cause, the engagement created by this Agreement lasts {years} "
        "full contract years, the first of which starts on {start}.]] A contract year is a period of twelve "
        "calendar months.",
    ],
    "renew": [
        "[[Upon expiration of the initial term, this Agreement {shall} automatically renew for "
        "{successive|additional} periods of {ryears} years each<notice|, unless either party gives written "
        "notice of non-renewal at least {days} days before the end of the then-current period>.]]",
        "[[{C} may extend this Agreement for one further term of {ryears} years by written notice to {P}, "
        "on the terms then in force.]] <notice|[[notice:A notice under this paragraph is valid only if it "
        "reaches {P} no later than {days} days before the expiry of the initial term; a party wishing to "
        "prevent an extension must object within the same time.]]>",
        "At the close of the initial term the relationship carries on by itself: [[the term is deemed "
        "extended from year to year on the same conditions]]. <notice|[[notice:Either party may prevent the "
        "next extension by a letter received by the other not later than {days} days prior to the relevant "
        "anniversary.]]>",
        "[[The term of this Agreement renews for {two|three|four} consecutive option periods of {months} "
        "months each, provided that {C} is not then in default.]] <notice|[[notice:An option period does "
        "not begin where {C} has informed {P} in writing, at least {months} months beforehand, that it "
        "declines the renewal.]]>",
        "[[After the initial term, this Agreement rolls over into renewal terms of twelve (12) "
        "months<notice| until one party advises the other in writing, {days} or more days before a renewal "
        "term starts, that it does not wish to continue>.]]",
        "[[The parties may not allow this Agreement to lapse by silence; on its expiry date it is extended "
        "for a renewal term equal in length to the initial term.]] <notice|[[notice:To stop such an "
        "extension, a party must serve a non-extension notice during the period of {days} days that ends "
        "{days} days before the expiry date.]]>",
        "[[On each anniversary following the initial term, an evergreen period of one (1) year {shall} "
        "follow<notice|, save where written notice that the Agreement will not be renewed was delivered "
        "{days} days in advance>.]]",
    ],
    "law": [
        "[[This Agreement {shall} be governed by, and construed in accordance with, the laws of {law}, "
        "without regard to its {conflict of laws|choice of law} rules.]]",
        "[[The validity, interpretation and performance of this Agreement are controlled by the law of "
        "{law}.]] The United Nations Convention on Contracts for the International Sale of Goods does not "
        "apply.",
        "[[All questions about the meaning of this Agreement, and all claims that arise from it in contract "
        "or in tort, {shall} be decided under the substantive law of {law}.]]",
        "[[{law} law governs this Agreement and the relationship of the parties under it]], and the parties "
        "consent to service of process by courier at the addresses stated above.",
        "[[The parties have chosen the internal laws of {law} as the law applicable to this Agreement, its "
        "formation and its breach]], that jurisdiction having a reasonable relation to the transaction.",
        "[[Any matter arising in connection with this Agreement is to be resolved according to the laws in "
        "force in {law}]], and the courts sitting there may hear it.",
        "[[In every respect, including its construction and enforceability, this instrument is a contract "
        "made under the laws of {law}.]]",
    ],
    "mfn": [
        "[[If during the term {P} offers {goods} of like kind to any other customer at a price lower than "
        "the price then charged to {C}, {P} {shall} extend the lower price to {C} from the same date.]]",
        "[[{P} warrants that the charges under this Agreement are, and {shall} stay, no less favorable than "
        "those it grants to any comparable purchaser]], and {P}'s controller {shall} confirm this by letter "
        "once a year.",
        "{C} is meant to be treated as well as {P}'s best account. [[Should {P} enter into an agreement "
        "with a third party that contains more beneficial commercial terms for substantially similar "
        "{goods}, {C} is entitled, at its option, to have this Agreement amended to include those terms.]]",
        "[[In no event {shall} {C} pay more than the lowest fee that {P} accepts from another customer for "
        "a similar volume of {goods}]]; any excess already paid {shall} be credited on the next invoice.",
        "[[{P} {shall} notify {C} within {days} days of granting any third party better discounts, credits "
        "or payment conditions for {goods}, and the same benefits {shall} then apply to {C} "
        "automatically.]]",
    ],
    "nc": [
        "[[During the term and for {months} months afterwards, {X} {shall} not, directly or indirectly, "
        "own, manage or work for any business that competes with {Y} in the field of {rfield}.]]",
        "[[{X} covenants that, for as long as this Agreement is in force, it will not develop, promote or "
        "sell anything that competes with the {rfield} of {Y} in {territory}.]]",
        "In view of the know-how it receives, [[{X} agrees to stay out of the business of {rfield} within "
        "{territory} until {years} years have passed from the end of this Agreement]].",
        "[[Neither {X} nor any person it controls may take up, or hold a financial interest in, a competing "
        "enterprise in the field of {rfield} while this Agreement lasts.]]",
        "[[{X} {shall} refrain from carrying on, in {territory}, an activity that rivals {Y}'s business of "
        "{rfield}, both throughout the term and for a period of {months} months after its end.]]",
        "[[Without the prior written approval of {Y}, {X} may not act as consultant, agent, investor or "
        "lender to a competitor of {Y} in the market for {rfield}]]; approval once given may be limited in "
        "time.",
    ],
    "excl": [
        "#d [[{P} {shall} not appoint any other distributor, dealer or sales agent for the {goods} in "
        "{territory} during the term.]]",
        "#d [[{P} appoints {C} as its sole and exclusive channel for the {goods} in {territory}, and {P} "
        "itself {shall} not sell there except through {C}.]]",
        "#gs [[{C} {shall} obtain from {P} all of its requirements for {field} in {territory} and {shall} "
        "not procure them from anyone else.]]",
        "#gs [[For the duration of this Agreement {P} {shall} be {C}'s only source of {field}]]; {C} has "
        "satisfied itself that {P} can meet its needs.",
        "[[{P} agrees to deal exclusively with {C} in {territory} as regards {field}, and {shall} turn away "
        "any inquiry received from a third party there.]]",
        "#r [[The rights given to {C} under this Agreement are exclusive in {territory}, and {P} {shall} "
        "not grant similar rights to any third party there.]]",
        "#r [[Within {territory}, {P} {shall} neither use the {lic} itself nor allow another to do so while "
        "this Agreement is in effect.]]",
        "[[As long as this Agreement stands, {P} may not make {field} available for use in {cfield} to "
        "anyone other than {C}.]]",
    ],
    "nsc": [
        "[[{X} {shall} not, during the term or within {months} months after it, solicit or accept business "
        "from any person that it knows to be a customer of {Y}.]]",
        "The customer list of {Y} is the fruit of long effort. [[{X} promises not to approach, divert or "
        "entice away any account named on that list, whether for itself or for others, until {years} years "
        "after this Agreement ends.]]",
        "[[Throughout the term, neither {X} nor its agents may contact {Y}'s customers or trade partners "
        "with a view to inducing them to reduce or end their dealings with {Y}.]]",
        "[[For {months} months following the last day of this Agreement, {X} {shall} abstain from "
        "contracting with those clients of {Y} to which it was introduced in the course of performance.]]",
        "[[{X} may not use its position under this Agreement to draw {Y}'s patrons to another business, nor "
        "solicit their custom on behalf of any other person.]]",
    ],
    "cre": {
        "nc": [
            "[[The foregoing restriction does not prevent {X} from holding, as a passive investment, up to "
            "{2%|3%|5%} of the publicly traded shares of any company.]]",
            "[[Nothing in this covenant applies to activities that {X} already carried on at the date of "
            "signature and that are listed in Schedule {2|3|4}.]]",
            "[[Notwithstanding the covenant against competition, {X} may continue to serve any customer "
            "outside {territory}, and may acquire a company of which a competing line makes up less than "
            "{pct} of sales.]]",
        ],
        "excl": [
            "[[The exclusivity described above {shall} not apply to accounts that {P} served before "
            "{start}, which are listed in Schedule {2|3|4}.]]",
            "[[Notwithstanding the exclusive arrangement, {C} may turn to other sources, and {P} to other "
            "outlets, for as long as a delay or shortage caused by the other exceeds {days} days.]]",
            "#g [[Sales to government agencies and over {P}'s own website are carved out of the exclusivity "
            "granted under this Agreement.]]",
        ],
        "nsc": [
            "[[General advertising that is not aimed at the customers of {Y} is not a breach of the "
            "preceding covenant.]]",
            "[[The ban on dealing with customers does not extend to those who approach {X} of their own "
            "accord or with whom {X} had dealings before {start}.]]",
        ],
    },
    "nse": [
        "[[While this Agreement is in force and for {months} months afterwards, neither party {shall} "
        "solicit for hire any employee of the other who took part in its performance.]]",
        "[[{X} {shall} not recruit, engage or induce to resign any member of {Y}'s staff without {Y}'s "
        "prior written consent]], save through advertisements addressed to the public at large.",
        "Each party has invested in its people. [[Until {years} years after the end of this Agreement, each "
        "agrees not to offer employment to, or take on as an independent contractor, a person employed by "
        "the other within the preceding {months} months.]]",
        "[[{Y}'s personnel are off limits: {X} may not, alone or with others, encourage them to leave {Y}'s "
        "employment during the term.]]",
        "[[No party may hire away the technicians, managers or subcontractors of the other so long as this "
        "Agreement lasts, nor for one (1) year thereafter.]]",
    ],
    "nd": [
        "[[Neither party {shall} make any statement, oral or written, that disparages the other or its "
        "products, officers or employees.]]",
        "[[{X} agrees to refrain from publishing remarks which could reasonably be expected to harm the "
        "reputation or goodwill of {Y}]]; truthful testimony compelled by law is not affected.",
        "The parties depend on each other's good name. [[Each {shall} avoid belittling or speaking ill of "
        "the other in the press, online or before customers.]]",
        "[[During and after the term, {X} {shall} not defame {Y}, criticize its management in public, or "
        "otherwise hold it up to ridicule.]]",
        "[[{X} {shall} do nothing that would bring {Y}, its brands or its principals into disrepute or cast "
        "them in an unfavorable light.]]",
    ],
    "tfc": [
        "[[Either party may terminate this Agreement at any time, for any reason or no reason, upon {days} "
        "days' prior written notice to the other.]]",
        "[[{C} may end this Agreement for its convenience by giving {P} not less than {days} days' written "
        "notice.]] Work in progress is then completed or stopped as {C} directs.",
        "[[At any point after the first contract year, {P} or {C} may bring this Agreement to a close "
        "without cause, such closing to take effect {months} months after a letter to that effect is "
        "received.]]",
        "[[{C} has the right, without giving reasons and without penalty, to cancel this Agreement in whole "
        "or in part on {days} days' notice.]]",
        "No default need be shown in order to leave. [[A party that no longer wishes to be bound {shall} "
        "say so in writing, and this Agreement {shall} cease at the end of the {nth} full month after that "
        "writing.]]",
        "[[Notwithstanding any other provision, {Y} is free to discontinue the arrangement at will by "
        "serving a {days}-day notice of termination on {X}.]]",
    ],
    "rofr": [
        "[[If {P} wishes to {sell or license|dispose of} its rights in {field} to a third party, it {shall} "
        "first offer them to {C} on the same terms, and {C} has {days} days in which to accept.]]",
        "[[{C} {shall} have a right of first negotiation for any improvement or new line that {P} "
        "introduces in the field of {field}.]] Negotiations {shall} be held in good faith for up to {days} "
        "days.",
        "[[Before accepting a bona fide offer for the business unit that performs this Agreement, {P} must "
        "give {C} an opportunity to match the offer within {days} days of written notice of its terms.]]",
        "#gr [[{P} grants {C} a right of first refusal over each territory adjoining {territory} that {P} "
        "decides to open during the term.]]",
        "[[Should {P} plan an offering of equity in the venture that supplies {field}, {C} {shall} be the "
        "first party invited to subscribe, and no one else may be approached until {C} has declined or "
        "{days} days have gone by.]]",
    ],
    "coc": [
        "[[If a party comes under the control of another person, by merger, sale of shares or otherwise, "
        "the other party may terminate this Agreement by notice given within {days} days of learning of "
        "it.]]",
        "[[{X} {shall} inform {Y} in writing at least {days} days before completing any merger, "
        "consolidation or sale of substantially all of its assets, and {Y}'s consent is required if the "
        "successor competes with {Y}.]]",
        'For the purposes of this Section, a "Change of Control" occurs when more than half of the voting '
        "power of {X} passes to new holders. [[Upon a Change of Control of {X}, {Y} may at its election end "
        "this Agreement with immediate effect.]]",
        "[[A transfer of {X}'s business by operation of law, or of shares carrying a majority of its votes, "
        "requires the prior approval of {Y}]], and without it {Y} may treat this Agreement as ended.",
        "[[{Y} may withdraw from this Agreement where {X} is acquired, sells the division that performs "
        "this Agreement, or enters into a reorganization in which its present owners lose their majority.]]",
    ],
    "aa": [
        "[[Neither party may assign this Agreement<coc|, whether by contract, merger, sale of control or "
        "operation of law,> without the prior written consent of the other, {which consent {shall} not be "
        "unreasonably withheld|and any attempt to do so is void}.]]",
        "[[{X} {shall} not transfer or assign any of its rights or delegate any of its duties under this "
        "Agreement to a third party unless {Y} has agreed in writing.]] {Y} may assign its right to receive "
        "payment.",
        "This Agreement was made in reliance on the particular skill and standing of the parties. [[It is "
        "therefore personal to {X} and may not be ceded, pledged or otherwise made over to another without "
        "{Y}'s approval.]]",
        "[[An assignment of this Agreement by either party is effective only after the other party has "
        "consented to it by a signed instrument<coc|, and a merger or a sale of substantially all assets "
        "counts as an assignment>.]]",
        "[[{X} may assign this Agreement to a subsidiary on {days} days' written notice to {Y}; every other "
        "assignment requires {Y}'s consent in advance.]]",
        "[[No right or obligation arising from this Agreement can pass to an outside person, in whole or in "
        "part, except with the written permission of both {P} and {C}.]]",
        "[[Any purported transfer of this Agreement by {X} made without {Y}'s written agreement is without "
        "effect and {shall} entitle {Y} to refuse performance.]]",
    ],
    "rev": [
        "#r [[In consideration of the rights granted, {C} {shall} pay {P} a royalty of {pct} of Net Sales, "
        "within {days} days after each calendar quarter.]]",
        "#r [[{C} {shall} remit to {P}, on or before the {tenth|fifteenth} day of each month, a continuing "
        "fee equal to {pct} of the gross revenue of the preceding month.]]",
        "#d [[{C} {shall} share with {P} {pct} of the margin it earns on each resale of the {goods}]], the "
        "remittance to be accompanied by a statement of units sold.",
        "#d [[On service contracts that {C} sells together with the {goods}, {P} is entitled to {pct} of "
        "the amounts collected.]]",
        "#gs [[The parties {shall} divide the savings and any net profit that result from this Agreement in "
        "the proportion of {pct} to {P} and the remainder to {C}.]]",
        "#s [[In addition to the fees, {C} {shall} pay {P} {pct} of the net revenue that {C} derives from "
        "the {goods}]], calculated at the end of each fiscal year.",
        "[[{P} and {C} agree to a profit split for each joint promotion: {pct} of net receipts belongs to "
        "{P} and the balance to {C}.]] Net receipts means cash received less returns and sales taxes.",
        "[[A percentage rent on success applies: once yearly sales tied to this Agreement pass {money}, {C} "
        "{shall} turn over to {P} {pct} of the receipts above that figure.]]",
    ],
    "price": [
        "[[{P} {shall} not raise its prices during the first {months} months and may not increase them "
        "afterwards by more than {pct} in any calendar year.]]",
        "[[Any increase in the charges is limited to the rise in the published consumer price index for the "
        "preceding year, and takes effect only on {days} days' notice.]]",
        "[[The prices in Schedule 1 are fixed for the first {years} years, and neither higher material "
        "costs nor exchange rates {shall} entitle {P} to alter them.]]",
        "[[{P} may revise its rates once a year at most, and a revision upward {shall} stay below {pct} of "
        "the rates in force.]] A proposed revision {shall} be explained in writing.",
        "[[Should {P} wish to charge more than the listed rates, it must obtain {C}'s agreement; failing "
        "agreement, the listed rates {shall} continue to apply.]]",
    ],
    "min": [
        "#g [[{C} {shall} purchase at least {units} units of the {goods} in each contract year.]] Units "
        "returned for credit are not counted.",
        "#g [[Every order placed by {C} {shall} be for goods worth not less than {omoney}, and the total of "
        "its orders in a year {shall} not fall under {bmoney}.]]",
        "#s [[{C} undertakes to order {goods} with a value of no less than {money} in each period of twelve months.]]",
        "#s [[Regardless of actual use, {C} {shall} pay for a minimum of {hours} hours of {goods} per "
        "calendar quarter.]]",
        "#r [[If the sums due to {P} for a year come to less than {money}, {C} {shall} pay the difference "
        "as a guaranteed annual minimum.]]",
        "#r [[{C} commits to buy from {P}, or from a source that {P} names, not fewer than {units} units of "
        "the {goods} each year.]]",
        "[[The parties have set a yearly volume floor of {bmoney}, which {C} {shall} reach through "
        "purchases from {P}]]; the floor is reduced pro rata for any part year.",
        "[[{C} guarantees to {P} billings of at least {money} per calendar quarter throughout the term, and "
        "{shall} make up any shortfall in cash.]]",
    ],
    "vol": [
        "#h [[If use exceeds {units} transactions in any month, {P} may charge the excess at the overage "
        "rate in the fee schedule.]]",
        "#h [[{C} {shall} not exceed the allotted capacity of {units} registered accounts without {P}'s "
        "written consent and payment of the tier then applicable.]]",
        "#s [[Requests that take more than {hours} hours of {P}'s time in a quarter are billed separately "
        "at {smoney} per hour.]]",
        "#g [[{P} need not accept orders that together exceed {units} units in a quarter, and quantities "
        "above that ceiling carry a surcharge of {pct}.]]",
        "#rg [[{C} may make or sell up to {units} units a year; for each unit beyond that number an "
        "additional fee of {smoney} is due.]]",
        "[[Where demand in a contract year passes the {threshold|level} of {units} units, the parties "
        "{shall} agree on increased charges before {P} supplies the excess.]]",
    ],
    "ipa": [
        "#s [[All work product that {P} creates in performing this Agreement is made for hire and belongs "
        "to {C}; to the extent that it does not, {P} hereby assigns to {C} all right, title and interest in "
        "it.]]",
        "#s [[Upon payment, ownership of the copyright, patents and designs arising from the {goods} "
        "{shall} pass to {C}]], and {P} {shall} sign whatever papers are needed to record this.",
        "#s [[{P} assigns to {C}, effective on creation, each invention conceived by its staff while "
        "engaged on {C}'s behalf.]]",
        "#gr [[Any improvement to the {lic} that {C} makes {shall} become the property of {P} as soon as it "
        "is made, and {C} hereby transfers all rights in it to {P}.]]",
        "#gr [[{C} hereby conveys to {P} every right that it may acquire in names, goodwill or know-how "
        "relating to {field}.]]",
        "#gr [[Designs, tooling drawings and specifications that {P} prepares at {C}'s request are owned by "
        "{C}, to whom {P} assigns them in advance.]]",
        "[[Intellectual property first devised by {X} under this Agreement vests in {Y}]], who may register "
        "it in {Y}'s own name.",
    ],
    "jip": [
        "[[Inventions made together by employees of both parties {shall} be owned jointly, in equal "
        "undivided shares.]]",
        "[[Title to jointly developed results vests in {P} and {C} as co-owners, each of whom may exploit "
        "them without accounting to the other.]]",
        "[[The parties {shall} hold in common any patent or copyright that arises from their combined "
        "efforts]], and {shall} split the cost of prosecuting it.",
        "[[Where the contributions of {P} and {C} to a work cannot be separated, both are owners of the "
        "whole, and neither may encumber its share without telling the other.]]",
    ],
    "lic": [
        "[[{P}<all|, for itself and on behalf of its Affiliates,> hereby grants to {C}<ale| and its "
        "Affiliates> a {limited|worldwide}{nonex}<nt|, non-transferable><irr|, perpetual and irrevocable> "
        "license to use the {lic} in connection with {cfield}.]]",
        "[[Subject to the terms of this Agreement, {C}<ale|, together with each of its Affiliates,> is "
        "granted a {limited|territorial}{nonex}<irr|, irrevocable><nt|, personal and non-assignable> right "
        "under the {lic}<all| and under such rights of {P}'s Affiliates as bear on it> to make, use and "
        "sell in {territory}.]]",
        "[[{P} licenses to {C}<ale| and to the companies that {C} controls> the {lic}<all|, including "
        "matter owned by affiliates of {P},> for the purposes of this Agreement<irr|, which license is "
        "perpetual><nt|; {C} may not transfer this license to anyone else>.]]",
        "Reproduction of the {lic} without permission is forbidden. [[{P} gives {C} permission to copy, "
        "display and use the {lic} in {territory}<nt|, but not to hand the permission on to a third "
        "party><irr|, and the permission is given once and for all and cannot be withdrawn>.]]",
        "[[{C}<ale| and any subsidiary of {C}> {shall} have a {limited|worldwide}{nonex} license<nt|, which "
        "it cannot sell, sublicense or transfer,> to employ the {lic}<all|, together with improvements "
        "owned by the parent or sister companies of {P},> in its business of {cfield}.]]",
        "[[For the consideration stated in this Agreement, {P} hereby grants {C}<nt|, and {C} alone without "
        "power to assign,> the right to practice and use the {lic} within {territory}<irr|, in "
        "perpetuity>.]]",
        "[[There is granted to {C}, from {start}, a license under the {lic}<ale| that extends to {C}'s "
        "Affiliates><nt| and that may not be made over to another>, limited to the field of {cfield}.]]",
    ],
    "nt": [
        "[[The license set out in this Article is personal to {C} and may not be transferred, in whole or in part.]]",
        "[[{C} {shall} not assign, sublicense or lend to any third party the rights of use it holds in the {lic}.]]",
        "[[No transfer of the license to another person is valid, and any attempt to transfer it ends the license.]]",
        "[[{C}'s permission to use the {lic} does not travel with a sale of its assets and cannot be passed on.]]",
    ],
    "all": [
        "[[The license extends to all patents and copyrights held by Affiliates of {P} to the extent that "
        "they are needed to use the {lic}]], and {P} {shall} procure that they honor it.",
        "[[{P} {shall} cause each of its Affiliates that owns an interest in the {lic} to license that "
        "interest to {C} on the terms of this Article.]]",
        "[[Rights in the {lic} that stand in the name of a parent or sister company of {P} are licensed to "
        "{C} as if {P} owned them.]]",
        "[[{P}, acting also as agent of the members of its corporate group, licenses to {C} such of their "
        "intellectual property as is embodied in the {lic}.]]",
    ],
    "ale": [
        "[[{C}'s Affiliates may exercise the license on the same conditions as {C}]], and {C} answers for "
        "their conduct.",
        "[[The rights of use given in this Article benefit {C} and every company under common control with it.]]",
        "[[{C} may extend the license to any Affiliate by naming it in a written notice to {P}]]; the "
        "extension ends when the company is no longer an Affiliate.",
        "[[For the purposes of the license, the licensee includes {C} and all members of its group, present "
        "and future.]]",
    ],
    "unl": [
        "[[The fee entitles {C} to an enterprise license: an unlimited number of users, copies and sites, "
        "without further charge.]]",
        "[[{C} may use the {lic} as much and as often as it pleases, for any number of persons and "
        "machines, and no charge depends on the extent of use.]]",
        "[[There is no ceiling on the volume of {C}'s use of the {lic}, and additional installations are "
        "free of charge.]]",
        "[[The license is granted on an all-inclusive basis, so that {C} may make unrestricted use of the "
        "{lic} across its whole organization for the flat fee.]]",
    ],
    "irr": [
        "[[The license granted in this Article is perpetual and may not be revoked for any reason.]]",
        "[[Once the license fee is paid in full, {C}'s right to use the {lic} becomes irrevocable.]]",
        "[[{P} waives any right to withdraw the license, which {shall} endure for as long as the underlying "
        "rights exist.]]",
        "[[The rights of use are given to {C} forever and are not affected by a later dispute between the parties.]]",
    ],
    "esc": [
        "[[Within {days} days of {start}, {P} {shall} deposit the source code of the {lic} with an "
        "independent escrow agent, who {shall} release it to {C} if {P} becomes insolvent or ceases "
        "support.]]",
        "[[{P} {shall} maintain a source code escrow for the benefit of {C} with an agent acceptable to "
        "both]], and {shall} refresh the deposit after each major release.",
        "[[A complete copy of the source materials for the {lic} {shall} be lodged in escrow at {P}'s cost. "
        "The agent {shall} hand it to {C} when a release event listed in Schedule {2|3|4} occurs.]]",
        "[[If {P} enters bankruptcy or abandons the {lic}, the escrow holder named by the parties {shall} "
        "deliver to {C} the deposited source code and build instructions.]]",
    ],
    "post": [
        "[[Upon the expiration or termination of this Agreement for any reason, {P} {shall} provide "
        "reasonable transition assistance to {C} for up to {months} months at the rates then in effect.]]",
        "#g [[After termination {C} may sell off its remaining stock of the {goods} for {days} days]], and "
        "orders accepted before the date of termination {shall} be filled.",
        "#g [[Within {days} days after this Agreement ends, {P} {shall} buy back from {C} all unsold "
        "{goods} in good condition at the price paid for them.]]",
        "#r [[On termination {C} {shall} at once stop using the {lic}, return all manuals and pay within "
        "{days} days all sums then owing to {P}.]]",
        "#r [[{C} may complete and sell work in progress during a wind-down period of {months} months "
        "following the end of this Agreement, and {shall} account to {P} for it.]]",
        "#s [[When this Agreement comes to an end, {P} {shall} hand over to {C}, or to a successor that {C} "
        "names, all data, records and work in progress in a usable format.]]",
        "#s [[For {days} days after the final day of service {P} {shall} keep {C}'s materials available for "
        "retrieval and {shall} then destroy them and certify that it has done so.]]",
        "#g [[{C} may place one last order within {days} days of notice of termination, which {P} {shall} "
        "fulfil on the terms of this Agreement although it has ended.]]",
    ],
    "audit": [
        "[[{X} {shall} keep accurate books relating to this Agreement and {shall} allow {Y} or its "
        "accountants to inspect them on {days} days' notice, during business hours, not more than once a "
        "year.]]",
        "[[{Y} may, at its own expense, audit the records of {X} to verify compliance with this "
        "Agreement.]] [[If an audit shows an error of more than {pct} to the detriment of {Y}, {X} {shall} "
        "bear the cost of the audit.]]",
        "[[Representatives of {Y} {shall} have access to the premises of {X} at all reasonable times in "
        "order to examine the operations carried on under this Agreement.]]",
        "[[At {Y}'s request, an independent certified public accountant bound to secrecy {shall} review the "
        "accounts of {X} and report to both parties on the accuracy of the sums invoiced or paid.]]",
        "[[{X} {shall} open its facilities and quality files to {Y} twice a year, and on reasonable "
        "suspicion of a breach at any time]], and {shall} correct within {days} days what is found wanting.",
        "[[Until {years} years after the period to which they refer, the ledgers and computer logs of {X} "
        "concerning this Agreement {shall} be open to examination and copying by {Y}.]]",
    ],
    "unc": [
        "[[The limitations of liability in this Agreement do not apply to a party's breach of "
        "confidentiality, to its infringement of the other's intellectual property, or to willful "
        "misconduct.]]",
        "[[{P}'s liability for death, bodily injury or fraud is unlimited.]]",
        "[[Nothing in this Agreement limits the amount that a party must pay under its duty to indemnify "
        "the other against claims of third parties for infringement.]]",
        "[[A PARTY THAT DISCLOSES CONFIDENTIAL INFORMATION IN BREACH OF THIS AGREEMENT {SHALL} BE LIABLE "
        "FOR THE FULL LOSS THAT RESULTS, WITHOUT ANY CEILING.]]",
    ],
    "cap": [
        "[[<unc|EXCEPT FOR BREACH OF CONFIDENTIALITY AND GROSS NEGLIGENCE, >THE TOTAL LIABILITY OF EITHER "
        "PARTY UNDER THIS AGREEMENT {SHALL} NOT EXCEED THE AMOUNTS PAID OR PAYABLE UNDER IT IN THE {MONTHS} "
        "MONTHS BEFORE THE CLAIM AROSE.]]",
        "[[{P}'s aggregate liability to {C} for all claims, whatever their legal basis, is limited to "
        "{bmoney}<unc|; this limit does not apply to claims for infringement of intellectual property or "
        "for willful acts>.]]",
        "[[In no event {shall} {P} be liable for a sum greater than the fees received from {C} for the "
        "{goods} that gave rise to the loss.]]",
        "[[No action arising from this Agreement may be brought by either party more than {months} months "
        "after the facts on which it rests became known.]] [[Recovery in any such action {shall} be "
        "restricted to {money}.]]",
        "[[The maximum sum that {C} may recover from {P} by way of damages in a contract year is {pct100} "
        "of the price paid in that year<unc|, except that no maximum applies to harm caused "
        "deliberately>.]]",
        "[[The parties have allocated the risk between them and agree that the damages payable by one to "
        "the other {shall} in the aggregate stay within {bmoney}]], which the prices reflect.",
        "[[{PU}'S CUMULATIVE LIABILITY {SHALL} BE CAPPED AT {MONEY}<unc|, SAVE THAT LIABILITY FOR PERSONAL "
        "INJURY AND FOR MISUSE OF CONFIDENTIAL INFORMATION IS NOT CAPPED>.]]",
    ],
    "ld": [
        "#gs [[For each week of delay for which it is responsible, {P} {shall} pay {C} liquidated damages "
        "of {one|two} percent of the price of the delayed {goods}]], as a reasonable estimate of the loss.",
        "[[If this Agreement ends before its time through the default of {C}, {C} {shall} pay {P} an early "
        "termination fee of {money}.]]",
        "The harm caused by a breach of the covenants in this Agreement is hard to prove. [[The parties "
        "therefore agree that {X} {shall} pay {Y} {omoney} for every breach as agreed damages and not as a "
        "penalty.]]",
        "[[In case of a failure to take or deliver agreed quantities, the party at fault {shall} owe the "
        "other a fixed sum of {money} in settlement of all damages for that failure.]]",
        "[[Should this Agreement be terminated on account of {X}'s default, {X} {shall} pay a break-up "
        "charge equal to the average monthly billings multiplied by {six|nine|twelve}.]]",
    ],
    "war": [
        "#g [[{P} warrants that the {goods} {shall} be free from defects in material and workmanship for "
        "{months} months from {delivery|acceptance}.]]",
        "[[For a period of {days} days following acceptance, {P} {shall} at its own cost correct any "
        "respect in which the {goods} do not conform to their specifications.]]",
        "#g [[The warranty period is {years} years from the date of invoice]], during which {P} {shall} "
        "repair or replace what proves faulty in normal use.",
        "{P} stands behind what it supplies. [[Errors reported within {months} months of first use {shall} "
        "be remedied without charge; errors reported later {shall} be remedied at {P}'s standard rates.]]",
        "#g [[{P} guarantees the {goods} against malfunction until the earlier of {months} months after "
        "installation and {months} months after shipment.]]",
        "#s [[{P} warrants that the {goods} {shall} conform to the agreed description, and this assurance "
        "remains in force for {months} months after completion.]]",
        "#s [[Work found to be faulty within {days} days after it is handed over {shall} be done again by "
        "{P} free of charge.]] The remedy is the only one for faulty work.",
        "[[If within {days} days of delivery {C} finds the {goods} to be defective, {P} {shall} put the "
        "matter right at its own cost.]] No other warranty is given.",
    ],
    "ins": [
        "[[{X} {shall} maintain commercial general liability insurance with limits of not less than "
        "{bmoney} per occurrence, naming {Y} as an additional insured.]]",
        "[[Throughout the term {X} {shall} carry, with insurers of good standing, product and public "
        "liability cover of at least {bmoney}, and {shall} supply certificates of cover on request.]]",
        "[[{X} {shall} at its own expense insure against claims for bodily injury and property damage in "
        "the amount of {bmoney}.]] [[The policy {shall} provide that {Y} receive {days} days' notice of its "
        "cancellation.]]",
        "[[Before it starts work, {X} {shall} give {Y} evidence of workers' compensation insurance as "
        "required by statute and of professional liability insurance of {bmoney} for each claim.]]",
        "[[The insurance listed in Schedule {2|3|4} is to be taken out and kept up by {X} for the "
        "protection of both parties]]; a lapse in cover is a material breach.",
        "[[{X} agrees to procure an umbrella policy that brings its total third-party cover to {bmoney}, "
        "under which {Y} {shall} rank as co-insured.]]",
    ],
    "cns": [
        "[[{C} {shall} not contest, or help others to contest, the validity of {P}'s rights in the {lic}.]]",
        "[[{C} acknowledges that {P} owns its trade names and agrees never to challenge that ownership or "
        "apply to register a confusingly similar name.]]",
        "[[Neither party {shall} bring any proceeding against the other in which the title of the other to "
        "its patents, marks or copyrights is put in question.]]",
        "[[{X} releases {Y} from, and covenants not to sue upon, every claim that arose before {start}, "
        "whether or not it is connected with this Agreement.]]",
        "[[{C} may not dispute in any court or registry that {P} is the rightful proprietor of the designs "
        "and know-how relating to {field}.]]",
    ],
    "tpb": [
        "[[The Affiliates of {C} are intended third-party beneficiaries of this Agreement and may enforce "
        "it against {P} in their own names.]]",
        "[[The lender that finances {C}'s inventory, though not a party, is entitled to rely on and enforce "
        "the undertakings of {P} in this Article.]]",
        "Except as stated in the next sentence, no outsider gains rights from this Agreement. [[The "
        "officers, directors and employees entitled to indemnity may claim it directly from the party that "
        "owes it.]]",
        "[[{P}'s upstream licensors benefit from the provisions that protect the {lic} and may themselves "
        "take action on them against {C}.]]",
    ],
}
