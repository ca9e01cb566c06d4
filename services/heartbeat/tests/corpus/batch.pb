
k«“Êæ÷3worker-us-east-1c-r12-12705event-consumerfeature-foldsegment-replicahealth ý¿(×¬Ž€ö35[‘O?
k‹’Êæ÷3worker-eu-west-1a-r18-09037event-consumerfeature-foldsegment-replicahealth ®¸R(–îÁâò35N¨Ž>
P¼–Êæ÷3gateway-92bnnb9flx-2tjdfhttp-gatewaymetricshealth ×ò!(®šâÝõ35M÷4?
Pæ—Êæ÷3gateway-xd4flwkgjf-2765jhttp-gatewaymetricshealth èË(¨ð¹¦ö35èV³>agent-ps4lf €Ø°½÷3