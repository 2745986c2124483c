#!/bin/sh
# A sweep in three parts: here side by side on one machine; with GNU parallel on three:
# parallel --sshlogin a,b,c halfopen run … --partition {}/3 --out parts/{} ::: 1 2 3
seq 3 | xargs -P 3 -I{} halfopen run host-crash-sending --set sysctl.tcp_retries2=1..4 --partition {}/3 --out parts/{}
halfopen merge parts/*
