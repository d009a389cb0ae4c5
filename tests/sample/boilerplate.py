"""Paragraphs that answer none of the 41 questions: recitals, scope, mechanics, general terms, look-alikes.

The mark-up is that of clauses.py, less the gold spans.
"""

HEADINGS = {
    "defs": ["Definitions", "Defined Terms", "Interpretation"],
    "scope": ["Scope of the Arrangement", "Appointment and Scope", "Subject Matter", "The Engagement"],
    "perf": ["Performance", "Delivery and Performance", "Operational Matters", "Conduct of the Work"],
    "money": ["Prices and Payment", "Fees and Payment", "Financial Terms", "Charges"],
    "ip": ["Intellectual Property", "Proprietary Rights", "Technology and Marks"],
    "war": ["Warranties", "Quality and Warranty", "Assurances"],
    "conf": ["Confidentiality", "Confidential Information", "Non-Disclosure"],
    "cov": ["Covenants", "Restrictive Covenants", "Conduct of the Parties", "Protection of Goodwill"],
    "ins": ["Records and Risk", "Oversight", "Compliance and Risk Management", "Controls"],
    "liab": ["Liability", "Remedies and Liability", "Allocation of Risk", "Indemnification and Liability"],
    "term": ["Term and Termination", "Duration", "Term", "Duration and Ending"],
    "gen": ["General Provisions", "Miscellaneous", "General", "Final Provisions"],
}

RECITALS = [
    "WHEREAS, {P} is in the business of {field} and {C} is in the business of {cfield}; and WHEREAS, the "
    "parties believe that they can usefully work together on the terms that follow; NOW, THEREFORE, for "
    "good and valuable consideration, they agree:",
    "BACKGROUND. {C} is engaged in {cfield} and has need of {field}. {P} has experience in that field and "
    "is willing to meet the need. The parties have set down their understanding below.",
    "A. {P} is known in {territory} for its {field}. B. {C}, whose business is {cfield}, has approached {P} "
    "with a proposal. C. After negotiation the parties have reached the agreement recorded here.",
    "The parties make this Agreement in light of these facts: that {P} has built up resources in {field}; "
    "that {C} wishes to draw on them for its activities in {cfield}; and that each has obtained the advice "
    "that it thought necessary.",
]

AMENDED = (
    "This instrument amends and restates in full the earlier agreement between the same parties on the same "
    "subject, and replaces it from the date stated above. Orders accepted under the earlier agreement are "
    "completed under this one."
)

DEFINITIONS = {
    "goods": [
        '"{goods}" means the {gfield} described in Schedule 1, as the parties may modify it in writing from '
        "time to time.",
        'The expression "{goods}" refers to the items of {gfield} that are set out in Schedule 1 and their updates.',
        '"{goods}": what is supplied or done under this Agreement in the field of {gfield}, with the '
        "particulars given in Schedule 1.",
        'In this Agreement "{goods}" stands for the whole of the {gfield} identified in Schedule 1.',
    ],
    "lic": [
        '"{lic}" means the materials, methods and matter listed in Schedule 2 under that name.',
        'The term "{lic}" covers what is identified as such in Schedule 2, in whatever medium it is recorded.',
        '"{lic}" has the meaning given in the annex that accompanies Schedule 2.',
        'References to the "{lic}" are references to the matter so described in Schedule 2, including its '
        "documentation.",
    ],
    "affiliate": [
        '"Affiliate" means a company that controls, is controlled by or is under common control with a '
        "party, control being the power to direct its policies.",
        'A company is an "Affiliate" of another where one holds over half of the votes in the other, or a '
        "third company holds over half of the votes in both.",
        'An "Affiliate" of a party is any legal entity of the corporate group to which that party belongs.',
    ],
    "words": [
        '"Business Day" means a day on which banks are open in the principal city of both parties. Headings '
        "are for convenience and carry no meaning of their own.",
        "Words in the singular include the plural, and the word including is to be read without limitation. "
        "A reference to a statute is a reference to it as amended.",
        '"Schedule" means a schedule annexed to this Agreement. Where a schedule and the body differ, the '
        "body prevails unless the schedule states otherwise.",
        'The term "written" includes electronic mail only where this Agreement says so. Periods expressed '
        "in days are counted in calendar days.",
        'For this Agreement, "person" takes in individuals, firms and bodies corporate, and "quarter" means '
        "three calendar months beginning in January, April, July or October.",
    ],
}

# section -> topics; a topic is a list of phrasings.
BOILERPLATE = {
    "scope": [
        [
            "#g {P} {shall} sell and {C} {shall} buy the {goods} on the terms of this Agreement, which "
            "prevail over any printed terms on either party's forms.",
            "#g The sale of the {goods} by {P} to {C} for {territory} is the object of this Agreement. Each "
            "accepted order forms a separate contract that incorporates these terms.",
            "#g {C} has asked {P} to make the {goods} available for its operations in {territory}, and {P} "
            "has agreed to do so as provided in the following Articles.",
            "#s {C} engages {P} to furnish the {goods} described in Schedule 1, and {P} accepts the "
            "engagement and {shall} assign suitable staff to it.",
            "#s The {goods} are to be carried out for {C} in {territory} according to one or more "
            "statements of work, each signed by both parties before work begins.",
            "#s {P} {shall} perform the {goods} with reasonable skill and {shall} follow the timetable in "
            "the project plan that the parties have initialed.",
            "#s This Agreement sets the framework under which {C} may call for {goods}. Nothing is to be "
            "done under it until a work order describes the task.",
            "#r The parties {shall} work together in {territory} in the field of {field} according to the "
            "standards that {P} lays down in its written guidelines.",
            "#r This Agreement concerns the use in {territory} of what {P} has created in the field of "
            "{field}. The quality of everything offered to the public {shall} meet {P}'s written standards.",
            "#r {C} has inspected the matter made available by {P} and finds it suited to its plans for "
            "{cfield} in {territory}.",
        ],
        [
            "The parties {shall} each name a contact person, who {shall} confer by telephone at least once "
            "a month and keep a short record of decisions.",
            "Each party {shall} designate a relationship manager. The managers meet quarterly, alternately "
            "at the offices of {P} and {C}, to review progress.",
            "A steering group of two persons from each side {shall} watch over the work. It advises and "
            "cannot alter this Agreement.",
            "Day-to-day matters {shall} be handled by the coordinators named in Schedule 1, either of whom "
            "may be replaced by written notice.",
        ],
        [
            "{C} {shall} give {P} the information and access that {P} reasonably needs, and {shall} answer "
            "questions without undue delay.",
            "{P} depends on timely decisions by {C}. Where {C} is late in deciding, the dates that depend "
            "on the decision move by the same time.",
            "Each party {shall} cooperate in good faith, supply the data that the other needs for its part "
            "of the work and warn it early of difficulties.",
            "{C} is responsible for the accuracy of what it tells {P}, and {P} may rely on it without "
            "making its own inquiries.",
        ],
    ],
    "perf": [
        [
            "#g Orders {shall} be placed in writing and state quantity, destination and desired date of "
            "shipment. An order binds {P} when {P} confirms it, or after {five|seven|eight} Business Days "
            "without reply.",
            "#g {C} {shall} send {P} a rolling forecast for the next {two|three} quarters by the first week "
            "of each month. Forecasts are for planning and bind no one.",
            "#g Purchase orders are sent electronically to {P}'s order desk, which {shall} acknowledge them "
            "within three Business Days and state the expected ship date.",
            "#s {P} {shall} carry out the {goods} at the locations agreed and {shall} observe the site and "
            "security rules of {C} of which it has been told.",
            "#s Changes to a statement of work require a change order that describes the change and its "
            "effect on price and timetable. Until it is signed, work goes on as before.",
            "#s {P} {shall} select the personnel who perform the {goods} and remains answerable for their "
            "pay, their taxes and their supervision.",
            "#f {P} {shall} supply {C} with one set of manuals and a course of initial instruction at {P}'s "
            "offices; {C} pays the travel of its own trainees.",
            "#r Before first use, {C} {shall} submit samples, layouts and copy to {P}, which {shall} "
            "approve or reject them within ten Business Days, giving reasons for a rejection.",
            "#r {C} {shall} begin commercial activity in {territory} with reasonable diligence and {shall} "
            "tell {P} of the opening date in advance.",
        ],
        [
            "#g Delivery is {FCA|FOB|EXW} {P_city}. Risk of loss passes when the goods are handed to the "
            "carrier, and title passes at the same time.",
            "#g {P} {shall} pack the goods suitably for transport and mark each pallet with the order "
            "number. Claims for damage in transit are made against the carrier.",
            "#g Shipments go by the carrier that {C} names. {P} {shall} hand over a packing list and a "
            "certificate of analysis with each consignment.",
            "#s Each deliverable {shall} be presented to {C}, which {shall} test it against the agreed "
            "criteria and report its findings within ten Business Days; silence counts as acceptance.",
            "#m {P} {shall} operate a help desk that takes calls from {C} on Business Days between eight "
            "and six o'clock and logs each of them with a number and a degree of urgency.",
            "#s {P} {shall} send {C} a short written report at the end of each month, which lists the work "
            "done, the work ahead and any decision that {C} has to take.",
            "#s Work {shall} follow the calendar that the coordinators agree upon each quarter; a date that "
            "cannot be kept is moved by mutual consent, and the reason is noted in the file.",
            "#m Planned outages and visits {shall} be announced by {P} three Business Days in advance and, "
            "where practical, placed outside {C}'s hours of business.",
            "#f {C} {shall} employ competent staff, keep its premises clean and in good repair, and present "
            "the {goods} to the public in the manner described in {P}'s guidelines.",
            "#r {P} {shall} answer reasonable technical questions from {C} by telephone during normal "
            "hours, up to a level that does not disturb its own operations.",
            "#f All signs and packaging {shall} carry the legends that {P} prescribes, in the size and "
            "color shown in the graphics guide.",
        ],
        [
            "Neither party is answerable for delay caused by storm, fire, war, epidemic, strike or other "
            "events that it cannot control, for as long as they last and so long as it tries to overcome "
            "them.",
            "FORCE MAJEURE. A party prevented from performing by an event outside its reasonable control is "
            "excused while the event lasts, provided it tells the other promptly and resumes as soon as it "
            "can.",
            "Performance is suspended during any act of God, public disorder, embargo or failure of public "
            "utilities that makes it impossible. Duties to pay money are not suspended.",
            "If flood, earthquake, governmental order or a like cause hinders a party, its time for "
            "performance is extended by the length of the hindrance.",
        ],
        [
            "Each party {shall} comply with the laws that apply to it, including those on labor, export, "
            "privacy and the environment, and {shall} hold the permits its work requires.",
            "{P} and {C} {shall} observe all statutes and regulations in force where they act under this "
            "Agreement, and neither {shall} offer a public official anything of value.",
            "Nothing supplied under this Agreement {shall} be shipped to a destination to which the export "
            "laws of the United States forbid shipment.",
            "Personal data that reach a party {shall} be handled in keeping with privacy law and guarded "
            "with the same care that the party gives its own.",
        ],
    ],
    "money": [
        [
            "{P} {shall} invoice {C} monthly in arrears. Undisputed invoices are payable within {days} days "
            "of receipt by wire transfer to the account stated on them.",
            "Payment is due net {days} days from the date of invoice, in United States dollars, without "
            "set-off except for sums that {P} has admitted.",
            "The sums stated in Schedule 1 fall due on presentation of a proper invoice and {shall} be paid "
            "by check or bank transfer within {days} days.",
            "{C} {shall} pay what it owes under this Agreement no later than {days} days after the close of "
            "the month in which the invoice was issued.",
            "Invoices {shall} show the order number and be sent to {C}'s accounts department; an invoice "
            "without the number may be returned for correction and falls due {days} days after it is "
            "presented again.",
        ],
        [
            "A sum not paid when due bears simple interest at one percent (1%) a month, or at the highest "
            "lawful rate if that is lower, until it is paid.",
            "Overdue amounts carry interest at the prime rate published by the payee's bank plus two "
            "points, from the due date to the day of payment.",
            "If {C} is behind in payment by more than a month, {P} may hold back further performance until "
            "the arrears are settled.",
            "A party that disputes an invoice {shall} say why in writing before the due date and {shall} "
            "pay the part not in dispute.",
        ],
        [
            "Sales, use and value added taxes are added to the sums stated and are borne by {C}. Taxes on "
            "the income of {P} are borne by {P}.",
            "All amounts are stated exclusive of taxes and duties. Where tax must be withheld, {C} {shall} "
            "give {P} the official receipt.",
            "{C} {shall} furnish its exemption certificate where it claims to be free of sales tax; "
            "otherwise {P} {shall} collect the tax and pay it over.",
            "Each party bears the taxes that the law lays upon it in consequence of this Agreement.",
        ],
        [
            "Travel and lodging costs approved in advance by {C} are reimbursed at cost on presentation of receipts.",
            "Except where this Agreement provides otherwise, each party bears its own expenses, including "
            "those of its lawyers and advisers.",
            "{P} may ask for a deposit or letter of credit where it has good reason to doubt that {C} will "
            "be able to pay.",
            "#g Freight, customs clearance and brokerage are charged at cost and appear as separate lines "
            "on the invoice.",
        ],
    ],
    "ip": [
        [
            "Each party keeps the intellectual property that it held before {start} or creates apart from "
            "this Agreement.",
            "What a party owned on the day of signature in the way of inventions, works and names it "
            "continues to own, unaffected by this Agreement.",
            "{P} remains the owner of its inventions, marks and works, whether or not they are mentioned in "
            "this Agreement.",
            "Neither party acquires title to the other's pre-existing inventions, writings or trade secrets "
            "by reason of working under this Agreement.",
        ],
        [
            "Each party {shall} tell the other promptly of any suspected infringement that comes to its "
            "notice, and {P} alone decides whether to act against it.",
            "{C} {shall} keep intact all notices of copyright and trademark that appear on what it receives from {P}.",
            "If a third party claims that something supplied by {P} infringes its rights, {P} {shall} "
            "change it, replace it or refund its price.",
            "Neither party {shall} use the other's name in advertising or on a client list without leave "
            "given in writing for the particular occasion.",
        ],
    ],
    "war": [
        [
            "Each party represents that it is duly organized, that it has authority to sign this Agreement "
            "and that doing so breaches no other agreement that binds it.",
            "{P} and {C} each declare that the person who signs below is empowered to do so and that no "
            "approval of a third person is needed.",
            "Each side confirms that it is in good standing where it was formed and is not the subject of "
            "insolvency proceedings.",
            "Each party states that it has read this Agreement, has taken advice on it and has the means to "
            "carry it out.",
        ],
        [
            "OTHER THAN AS STATED IN THIS AGREEMENT, {PU} MAKES NO WARRANTY, EXPRESS OR IMPLIED, AND "
            "DISCLAIMS THE IMPLIED WARRANTIES OF MERCHANTABILITY AND FITNESS FOR A PARTICULAR PURPOSE.",
            "There are no conditions or warranties beyond those written here, and any that the law would "
            "imply are excluded as far as the law allows.",
            "{C} has relied on its own judgment in selecting the {goods} and on no statement that is not "
            "part of this Agreement.",
            "{P} does not promise that the {goods} will meet every need of {C} or be free of interruption.",
        ],
    ],
    "conf": [
        [
            "Each party {shall} hold in confidence the non-public information that it receives from the "
            "other, use it only for this Agreement and show it only to staff who need it.",
            '"Confidential Information" means business and technical information marked as such or plainly '
            "secret by nature. The recipient {shall} guard it as it guards its own.",
            "A party given secrets of the other {shall} not reveal them to outsiders and {shall} take "
            "reasonable steps against their loss or theft.",
            "The party to which information is disclosed under this Agreement {shall} treat it as "
            "confidential and {shall} bind its advisers to do likewise.",
        ],
        [
            "The duty of secrecy lasts for {years} years from the date on which the information in question "
            "was disclosed, and for trade secrets as long as they remain secret.",
            "The obligations of this Article cease {years} years after each disclosure.",
            "Information is to be kept confidential until {endday}, or until it becomes public without "
            "fault of the recipient if that happens earlier.",
            "Each item of information loses its protection on the {nth} anniversary of the day it was received.",
        ],
        [
            "These duties do not extend to information that is public, was already known to the recipient, "
            "was found by it independently, or came from a third party free to disclose it.",
            "A recipient that is ordered by a court to disclose information may do so, after telling the "
            "other party where the law permits.",
            "Information already in the public domain, or developed by the recipient without use of what it "
            "was told, is not confidential.",
            "On request a party {shall} return or erase the documents that contain the other's information, "
            "except copies kept in routine back-ups.",
        ],
    ],
    "liab": [
        [
            "{P} {shall} defend and indemnify {C} against claims of third parties arising from {P}'s "
            "negligence, provided that {C} gives prompt notice and leaves the defense to {P}.",
            "Each party {shall} hold the other harmless from third-party claims caused by its own wrongful "
            "act in carrying out this Agreement.",
            "{C} {shall} indemnify {P}, its officers and employees against demands by others that stem from "
            "{C}'s conduct of its business in {territory}.",
            "The party seeking indemnity {shall} report the claim within ten Business Days, give the help "
            "that is asked for and settle nothing without approval.",
        ],
        [
            "Rights and remedies under this Agreement add to, and do not replace, those that the law provides.",
            "A party claiming a loss {shall} take reasonable steps to reduce it.",
            "A breach of the secrecy provisions may call for an injunction, which may be sought without "
            "posting a bond.",
            "No remedy given in this Agreement shuts out any other that is available in equity.",
        ],
    ],
    "term": [
        [
            "A party may terminate this Agreement if the other commits a material breach and does not cure "
            "it within {days} days of written notice that describes the breach.",
            "Failure by either party to remedy a substantial default within {days} days after being called "
            "upon to do so gives the other the right to terminate for that cause.",
            "If a party defaults in an essential duty and the default goes on for {days} days after a "
            "written warning, the other may declare this Agreement ended.",
            "Where payment is more than {days} days overdue, or another serious breach is left uncured for "
            "that time after a demand, the innocent party may terminate.",
        ],
        [
            "Either party may end this Agreement at once if the other becomes bankrupt, makes a composition "
            "with its creditors or has a receiver appointed over its property.",
            "Insolvency of a party, or the filing of a petition in bankruptcy that is not dismissed within "
            "{days} days, is a ground for termination by the other.",
            "This Agreement may be terminated by a party if the other ceases to pay its debts as they fall "
            "due or is wound up.",
            "The appointment of a trustee or liquidator for a party allows the other to terminate by a "
            "written declaration.",
        ],
    ],
    "gen": [
        [
            "Notices {shall} be in writing and sent by courier or registered mail to the address at the "
            "head of this Agreement. They take effect on receipt.",
            "Any notice is validly given when delivered by hand, or three Business Days after it is mailed "
            "postage prepaid to the addressee's principal office, marked for the attention of its {legal "
            "department|president|secretary}.",
            "Communications of legal effect must be in writing, signed, and delivered to {P} in {P_city} "
            "and to {C} in {C_city}.",
            "Formal notices go by overnight courier to the officer who signed below, with a copy by "
            "electronic mail that by itself does not count as notice.",
        ],
        [
            "If a provision is held invalid, the rest of this Agreement stands and the provision is "
            "replaced by a valid one close to it in purpose.",
            "Invalidity of one clause does not touch the others.",
            "Should a court strike down any part of this Agreement, the remaining parts keep their force to "
            "the extent that the parties' bargain is preserved.",
            "A term that cannot be enforced is cut down to what can be enforced, or left out, and the "
            "balance remains binding.",
        ],
        [
            "This Agreement may be signed in counterparts, each of which is an original and all of which "
            "are one document.",
            "Signatures exchanged by facsimile or electronic means bind the parties as if they were made by "
            "hand on one paper.",
            "Two originals of this Agreement have been signed, one for each party.",
            "The parties may sign separate copies; when each has signed one, the copies together form the contract.",
        ],
        [
            "This is the whole agreement of the parties on its subject and replaces their earlier talks, "
            "letters and drafts. It may be changed only by a paper that both have signed.",
            "No promise outside this document binds either party. Amendments need the signature of an officer of each.",
            "The parties' earlier understandings on this subject, written and oral, are merged in this "
            "Agreement, which only a later signed writing can vary.",
            "This document and its schedules state everything agreed between {P} and {C}. E-mail exchanges "
            "do not amend it.",
        ],
        [
            "A party that does not insist on a right on one occasion has not given it up for another.",
            "Delay in using a remedy is no waiver of it, and a waiver must be in writing.",
            "Indulgence shown by one party to the other creates no precedent.",
            "The failure of a party to object to a breach does not excuse that breach or a later one.",
        ],
        [
            "The parties are independent contractors. Neither is the agent, partner or employee of the "
            "other, and neither can bind the other.",
            "Nothing here makes the parties partners or joint venturers, and no employment arises between "
            "one of them and the other's staff.",
            "{P} acts on its own account as an independent business and {shall} not hold itself out as the "
            "representative of {C}.",
            "The relation of {P} to {C} is that of contractor to customer and no other.",
        ],
        [
            "A dispute {shall} first be taken to senior officers of both parties, who {shall} meet within "
            "{days} days and try to settle it.",
            "Before going to court the parties {shall} attempt mediation before a mediator chosen by both "
            "and share its cost equally.",
            "Disagreements that the coordinators cannot resolve are referred upward to the chief executives "
            "for discussion.",
            "The parties {shall} seek to settle by negotiation any controversy between them and {shall} go "
            "on performing while they do so.",
        ],
        [
            "The captions in this Agreement are there for ease of reference only.",
            "The language of this Agreement is English; translations are for information.",
            "Each party {shall} sign the further papers that are reasonably needed to give effect to this Agreement.",
            "No rule that reads doubtful words against their author applies, since both parties took part "
            "in the drafting.",
            "Press releases about this Agreement {shall} be agreed between the parties before they are "
            "issued, save where stock exchange rules demand otherwise.",
        ],
    ],
}

# Look-alikes, each like a category and not one: section, categories that must be absent, text.
LOOKALIKES = [
    (
        "ins",
        "ins",
        "Neither party is required by this Agreement to carry insurance of any kind, and each "
        "bears its own risks as it sees fit.",
    ),
    (
        "ins",
        "ins",
        "The parties have considered whether to call for insurance and have decided that none "
        "need be taken out by either of them.",
    ),
    (
        "liab",
        "cap unc",
        "NEITHER PARTY IS LIABLE TO THE OTHER FOR LOST PROFITS OR FOR INDIRECT OR "
        "CONSEQUENTIAL DAMAGES, EVEN IF IT WAS TOLD THAT THEY MIGHT OCCUR.",
    ),
    (
        "liab",
        "cap unc",
        "Punitive and exemplary damages cannot be claimed by either party. The amount of "
        "direct damages is left to the court.",
    ),
    (
        "scope",
        "excl nc",
        "Each party remains free to deal with other persons in the same line of business, "
        "and this Agreement {shall} not be read to prevent it.",
    ),
    (
        "scope",
        "excl",
        "The relationship under this Agreement is non-exclusive on both sides, {P} being at "
        "liberty to serve others and {C} to turn to other sources.",
    ),
    (
        "perf",
        "min",
        "{C} is under no duty to order any particular quantity, and past orders create no expectation of future ones.",
    ),
    (
        "ip",
        "lic nt all ale unl irr",
        "No license is given under this Agreement, by implication or "
        "otherwise, in any patent, copyright or trademark of either party.",
    ),
    (
        "ins",
        "audit",
        "Each party keeps its own accounts for its own purposes, and neither has a claim to see those of the other.",
    ),
    (
        "gen",
        "tpb",
        "No person other than {P} and {C} has any right under this Agreement or any means of enforcing it.",
    ),
    (
        "war",
        "war",
        "{P} gives no warranty that runs for a fixed time; its duty is to use reasonable care when it performs.",
    ),
    (
        "cov",
        "nse",
        "Each party may recruit in the open market, and nothing in this Agreement restricts whom it may employ.",
    ),
    (
        "money",
        "price",
        "{P} may change its list prices whenever it thinks fit; an order already accepted is charged as confirmed.",
    ),
    (
        "money",
        "mfn",
        "{C} acknowledges that {P} charges different customers different prices, according to "
        "volume, location and credit, and has no claim to the terms that another has obtained.",
    ),
    (
        "ip",
        "esc",
        "{P} {shall} not be obliged to disclose source materials or working papers, which it "
        "keeps at its own premises.",
    ),
    (
        "cov",
        "rofr",
        "Neither party is bound to offer future business to the other, or to tell it of "
        "opportunities that come its way.",
    ),
]

CLOSINGS = [
    "IN WITNESS WHEREOF, the parties have caused this Agreement to be signed by their authorized officers.",
    "Signed for the parties by the persons named below, each of whom has authority to do so.",
    "The duly empowered representatives of the parties have put their signatures to this Agreement as follows.",
    "AGREED AND ACCEPTED by the undersigned.",
]

# Neutral closing words for short paragraphs: they add nothing to the clause before them.
TAILS = [
    "The parties have considered this provision with care and regard it as reasonable.",
    "This paragraph was negotiated between the parties and forms part of the bargain.",
    "Each party has taken its own advice on the point.",
    "{C} confirms that it has read and understood this provision.",
    "The parties accept that their prices and plans take account of this provision.",
    "Details of procedure may be settled between the coordinators of the parties.",
    "The provisions of Schedule 1 supplement this paragraph where they bear on the same matter.",
    "{P} acknowledges the importance of this provision to {C}.",
    "{C} acknowledges the importance of this provision to {P}.",
    "This paragraph is to be read together with the other paragraphs under the same heading.",
    "Nothing said in the recitals is to be used to narrow the meaning of this paragraph.",
    "The same principle is reflected in the parties' conduct during their earlier dealings.",
    "The wording of this paragraph follows a proposal made by {C} and accepted by {P}.",
    "The wording of this paragraph follows a proposal made by {P} and accepted by {C}.",
    "Examples given in the schedules illustrate this paragraph and do not change it.",
    "The parties {shall} act in good faith in applying this paragraph.",
    "Where doubt arises over this paragraph, the coordinators {shall} confer before any step is taken.",
    "The officers who sign below have drawn the attention of their boards to this provision.",
    "{P} and {C} have each initialed the margin beside this paragraph.",
    "This arrangement suits the present needs of the parties and reflects their discussions.",
]
