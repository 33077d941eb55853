-- Whether something can be stored now: a Redis whose memory is full does not run this.
return { 1 }
