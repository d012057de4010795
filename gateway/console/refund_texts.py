"""The texts of the console's page of refunds that a second key decides."""

from __future__ import annotations

from typing import Final

from gateway.pages.phrases import Translations

REFUNDS_EN: Final[Translations] = {
    "nav_refunds": "Refunds",
    "large_refunds": "Refunds by two keys",
    "large_refunds_why": "A refund past the installation's threshold is asked for by one key and approved by "
    "another. Until then its amount is reserved, and nothing is sent.",
    "approval_needed": "To decide",
    "approval_approved": "Approved",
    "approval_rejected": "Rejected",
    "none_to_decide": "No refund is waiting for a decision.",
    "refund_asked": "Asked for",
    "refund_decided_approved": "Approved",
    "refund_decided_rejected": "Rejected",
    "refund_reason": "Reason given",
    "refund_id": "Refund",
    "refund_status": "Status",
    "refund_not_sent": "Not sent",
    "own_refund": "You asked for this refund with the key you are logged in with. Another key has to approve "
    "it; you may reject it.",
    "confirm_approve_refund": "The money goes back to the donor. This cannot be undone.",
    "confirm_reject_refund": "Nothing is sent. The amount can be refunded again.",
    "refund_may_wait": "Where the payment gives back more than the installation's threshold in all, another "
    "key has to approve the refund before it is sent.",
    "refund_asked_decision": "Refund asked for",
    "done_refund_waits": "This refund needs a second key. Its amount is reserved, and nothing is sent until "
    "another key approves it on the page Refunds.",
    "done_refund_approved": "It is approved and sent. Its outcome follows from the payment processor.",
    "done_refund_rejected": "It is rejected. Nothing was sent.",
}

REFUNDS_AR: Final[Translations] = {
    "nav_refunds": "المبالغ المُعادة",
    "large_refunds": "إعادة مبالغ بمفتاحين",
    "large_refunds_why": "إعادة مبلغ يتجاوز الحد المضبوط في هذا النظام تُطلب بمفتاح ويعتمدها مفتاح آخر. "
    "وحتى ذلك الحين يبقى المبلغ محجوزًا ولا يُرسل شيء.",
    "approval_needed": "بانتظار القرار",
    "approval_approved": "معتمدة",
    "approval_rejected": "مرفوضة",
    "none_to_decide": "لا إعادة بانتظار القرار.",
    "refund_asked": "طُلبت",
    "refund_decided_approved": "اعتُمدت",
    "refund_decided_rejected": "رُفضت",
    "refund_reason": "السبب المذكور",
    "refund_id": "الإعادة",
    "refund_status": "الحالة",
    "refund_not_sent": "لم تُرسل",
    "own_refund": "طلبت هذه الإعادة بالمفتاح الذي دخلت به، ويجب أن يعتمدها مفتاح آخر. ويمكنك رفضها.",
    "confirm_approve_refund": "يعود المال إلى المتبرع، ولا يمكن التراجع عن ذلك.",
    "confirm_reject_refund": "لن يُرسل شيء، ويمكن طلب إعادة المبلغ من جديد.",
    "refund_may_wait": "إذا تجاوز مجموع ما يُعاد من الدفعة الحد المضبوط في هذا النظام، وجب أن يعتمد مفتاح آخر "
    "الإعادة قبل إرسالها.",
    "refund_asked_decision": "طُلبت الإعادة",
    "done_refund_waits": "تحتاج هذه الإعادة إلى مفتاح ثانٍ. المبلغ محجوز، ولن يُرسل شيء حتى يعتمدها مفتاح آخر "
    "في صفحة المبالغ المُعادة.",
    "done_refund_approved": "اعتُمدت الإعادة وأُرسلت، وتظهر النتيجة بعد رد مزوّد الدفع.",
    "done_refund_rejected": "رُفضت الإعادة، ولم يُرسل شيء.",
}
