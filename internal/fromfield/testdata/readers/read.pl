# Reads From fields with Email::Address::XS: see read.py.
use strict;
use warnings;
use Email::Address::XS;
use JSON::PP;
use MIME::Base64;

my $json = JSON::PP->new->latin1->canonical;
while (my $line = <STDIN>) {
    (my $value = decode_base64($line)) =~ s/\r?\n//g;
    my @found = eval { map { $_->address // () } grep { $_->is_valid } Email::Address::XS->parse($value) };
    print $json->encode({ 'Email::Address::XS' => [map { s/[^\x20-\x7e]/?/gr } @found] }), "\n";
}
